/* A stand-in for libnvidia-ml.so.1: two GPUs, the second silent. FAKE_NVML=broken: it does not
 * start; FAKE_NVML=uncounted: it starts and then fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB (1ull << 30)

static int is(const char *word)
{
    const char *said = getenv("FAKE_NVML");
    return said && strcmp(said, word) == 0;
}

int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
    return is("broken") ? 18 : 0;
}

int nvmlSystemGetDriverVersion(char *text, unsigned size);
int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
    snprintf(text, size, "580.95.05");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = 2;
    return is("uncounted") ? 15 : 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    static int first;
    *device = &first;
    return index == 0 ? 0 : 15;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size);
int nvmlDeviceGetName(void *device, char *text, unsigned size)
{
    (void)device;
    snprintf(text, size, "NVIDIA H200");
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3]);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3])
{
    (void)device;
    memory[0] = 140 * GIB; /* total, free, used */
    memory[1] = 128 * GIB;
    memory[2] = 12 * GIB;
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2]);
int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2])
{
    (void)device;
    rates[0] = 37; /* of the processors, of the memory's bus */
    rates[1] = 5;
    return 0;
}

const char *nvmlErrorString(int code);
const char *nvmlErrorString(int code)
{
    return code == 18 ? "Driver/library version mismatch" : "GPU is lost";
}
