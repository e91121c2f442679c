/* A driver for tests on machines without a GPU: it claims one, so that TensorFlow opens CUDA's libraries, and fails
   whatever would use it. Compiled as libcuda.so.1 and as libnvidia-ml.so.1. */
#include <stdio.h>

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { return snprintf(name, size, "none") < 0; }
int cuDeviceGetPCIBusId(char *bus, int size, int device) { return snprintf(bus, size, "0000:00:00.0") < 0; }

/* 75 and 76 ask for the compute capability: an A100's. */
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 0 : 64;
  return 0;
}

int cuGetErrorName(int error, const char **text) { *text = "NO_GPU"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "a driver without a GPU"; return 0; }
