// CUB's BlockLoad: each thread of a block loads its items.
#pragma once

namespace cub {
enum BlockLoadAlgorithm { BLOCK_LOAD_DIRECT };
template <class T, int THREADS, int ITEMS, BlockLoadAlgorithm>
struct BlockLoad {
    struct TempStorage {};
    explicit BlockLoad(TempStorage&) {}
    template <class From, class Default>
    void Load(From from, T (&items)[ITEMS], int valid, Default otherwise) {
        for (int j = 0, i = threadIdx.x * ITEMS; j < ITEMS; j++, i++) {
            if (i < valid) items[j] = static_cast<T>(from[i]);
            else items[j] = otherwise;
        }
    }
};
}  // namespace cub
