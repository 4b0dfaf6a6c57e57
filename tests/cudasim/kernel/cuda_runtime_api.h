// NVRTC brings this along; for g++ it is in cuda.h.
#pragma once
