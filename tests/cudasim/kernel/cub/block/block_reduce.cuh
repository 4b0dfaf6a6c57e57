// CUB's BlockReduce: the first thread of a block gets the sum of all.
#pragma once

namespace cub {
template <class T, int THREADS>
struct BlockReduce {
    struct TempStorage { alignas(16) char bytes[sizeof(T) * THREADS]; };
    T* all;
    explicit BlockReduce(TempStorage& storage) : all((T*)storage.bytes) {}
    template <class Op> T Reduce(T own, Op op) {
        memcpy((void*)&all[threadIdx.x], &own, sizeof own);
        __syncthreads();
        T total = all[0];
        if (threadIdx.x == 0)
            for (int i = 1; i < THREADS; i++) total = op(total, all[i]);
        __syncthreads();
        return total;
    }
    template <int ITEMS, class Op> T Reduce(T (&own)[ITEMS], Op op) {
        T total = own[0];
        for (int i = 1; i < ITEMS; i++) total = op(total, own[i]);
        return Reduce(total, op);
    }
};
}  // namespace cub
