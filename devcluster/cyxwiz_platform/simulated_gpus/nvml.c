/* A libnvidia-ml.so.1 that tells what the JSON file named by CYXWIZ_SIMULATED_GPUS says, as of each call.
 *
 *   {"driver": "570.00", "cuda": 12080, "error": 0, "devices": [{"uuid": "GPU-...", "name": "...", ...}, ...]}
 *
 * Devices are flat objects; a field that is absent is "not supported", "error" is the NVML code that every call about
 * the device (or, at the top, every call) answers with, and each growth of "xids" is one event with the error "xid".
 * Handles are indexes, from 1. It reads this JSON and no other: no escapes in strings, no nesting in devices.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10, NO_DRIVER = 9 };
enum { MOST_DEVICES = 64, XID_EVENT = 8, FIELD_RECOVERY_ACTION = 230, TYPE_UNSIGNED_INT = 1 };

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { void *device; unsigned long long type, data; unsigned gi, ci; } Event;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;
typedef union { double d; int si; unsigned ui; unsigned long ul; unsigned long long ull; } Value;
typedef struct { unsigned id, scope; long long timestamp, latency; int type, result; Value value; } Field;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char text[1 << 18];
static char device_text[MOST_DEVICES][4096];
static int devices, sessions;
static struct stat seen;
static struct { int registered; long long told; } watched[MOST_DEVICES];

/* The value of "key" in `object`, past the colon; NULL when it is absent. */
static const char *find(const char *object, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(object, quoted);
    if (!at)
        return NULL;
    for (at += strlen(quoted); *at == ' '; at++)
        ;
    return at;
}

static int number(const char *object, const char *key, long long *out)
{
    const char *at = find(object, key);
    if (!at)
        return NOT_SUPPORTED;
    *out = strtoll(at, NULL, 10);
    return OK;
}

static int string(const char *object, const char *key, char *out, size_t size)
{
    const char *at = find(object, key), *end;
    if (!at || *at != '"' || !(end = strchr(at + 1, '"')))
        return NOT_SUPPORTED;
    snprintf(out, size, "%.*s", (int)(end - at - 1), at + 1);
    return OK;
}

/* `text` and `device_text` hold what the file says now. Called with the lock held; the answer is an NVML code. */
static int load(void)
{
    const char *path = getenv("CYXWIZ_SIMULATED_GPUS");
    struct stat now;
    if (!path || stat(path, &now))
        return NO_DRIVER;
    if (now.st_ino != seen.st_ino || now.st_mtim.tv_nsec != seen.st_mtim.tv_nsec || now.st_size != seen.st_size) {
        FILE *file = fopen(path, "r");
        if (!file)
            return NO_DRIVER;
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        seen = now;
        devices = 0;
        char *array = strstr(text, "\"devices\":");
        for (char *at = array; at && devices < MOST_DEVICES && (at = strchr(at, '{')); devices++) {
            char *end = strchr(at, '}');
            if (!end)
                break;
            snprintf(device_text[devices], sizeof device_text[0], "%.*s", (int)(end - at), at);
            at = end;
        }
        if (array)
            *array = 0; /* so that what is left in `text` is about the whole node */
    }
    long long error = OK;
    number(text, "error", &error);
    return sessions ? (int)error : UNINITIALIZED;
}

/* The device's object, with the lock held until `done`; NULL and an NVML code when it does not answer. */
static const char *begin(void *handle, int *code)
{
    size_t index = (size_t)handle - 1;
    long long error = OK;
    pthread_mutex_lock(&lock);
    if ((*code = load()) != OK)
        return NULL;
    if (index >= (size_t)devices) {
        *code = INVALID;
        return NULL;
    }
    number(device_text[index], "error", &error);
    *code = (int)error;
    return error ? NULL : device_text[index];
}

static int done(int code)
{
    pthread_mutex_unlock(&lock);
    return code;
}

static int device_number(void *handle, const char *key, long long *out)
{
    int code;
    const char *device = begin(handle, &code);
    return done(device ? number(device, key, out) : code);
}

static int device_string(void *handle, const char *key, char *out, unsigned size)
{
    int code;
    const char *device = begin(handle, &code);
    return done(device ? string(device, key, out, size) : code);
}

static int device_unsigned(void *handle, const char *key, unsigned *out)
{
    long long value = 0;
    int code = device_number(handle, key, &value);
    *out = (unsigned)value;
    return code;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&lock);
    sessions++;
    int code = load();
    if (code != OK)
        sessions--;
    return done(code);
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void)
{
    pthread_mutex_lock(&lock);
    sessions -= sessions > 0;
    return done(OK);
}

const char *nvmlErrorString(int code) { (void)code; return "simulated error"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    pthread_mutex_lock(&lock);
    int code = load();
    return done(code ? code : string(text, "driver", out, size));
}

int nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    long long value = 0;
    pthread_mutex_lock(&lock);
    int code = load();
    code = code ? code : number(text, "cuda", &value);
    *out = (int)value;
    return done(code);
}

int nvmlDeviceGetCount_v2(unsigned *out)
{
    pthread_mutex_lock(&lock);
    int code = load();
    *out = (unsigned)devices;
    return done(code);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    int code;
    *out = (void *)(size_t)(index + 1);
    begin(*out, &code);
    return done(code);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **out)
{
    char its[96];
    pthread_mutex_lock(&lock);
    int code = load();
    for (int i = 0; code == OK && i < devices; i++)
        if (string(device_text[i], "uuid", its, sizeof its) == OK && !strcmp(its, uuid)) {
            *out = (void *)(size_t)(i + 1);
            return done(OK);
        }
    return done(code ? code : NOT_FOUND);
}

int nvmlDeviceGetUUID(void *d, char *out, unsigned size) { return device_string(d, "uuid", out, size); }
int nvmlDeviceGetName(void *d, char *out, unsigned size) { return device_string(d, "name", out, size); }
int nvmlDeviceGetArchitecture(void *d, unsigned *out) { return device_unsigned(d, "arch", out); }
int nvmlDeviceGetPowerUsage(void *d, unsigned *out) { return device_unsigned(d, "power_mw", out); }

int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *out)
{
    (void)sensor;
    return device_unsigned(d, "temperature", out);
}

int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *out)
{
    return device_number(d, "energy_mj", (long long *)out);
}

int nvmlDeviceGetCurrentClocksEventReasons(void *d, unsigned long long *out)
{
    return device_number(d, "clocks", (long long *)out);
}

int nvmlDeviceGetTotalEccErrors(void *d, int type, int counter, unsigned long long *out)
{
    (void)type, (void)counter;
    return device_number(d, "ecc", (long long *)out);
}

int nvmlDeviceGetCudaComputeCapability(void *d, int *major, int *minor)
{
    long long value = 0;
    int code = device_number(d, "capability", &value);
    *major = (int)value / 10, *minor = (int)value % 10;
    return code;
}

int nvmlDeviceGetUtilizationRates(void *d, Utilization *out)
{
    out->memory = 0;
    return device_unsigned(d, "utilization", &out->gpu);
}

int nvmlDeviceGetMemoryInfo_v2(void *d, Memory *out)
{
    long long total = 0, reserved = 0, free = 0;
    int code = device_number(d, "memory_mib", &total);
    device_number(d, "reserved_mib", &reserved);
    device_number(d, "free_mib", &free);
    out->total = (unsigned long long)total << 20, out->reserved = (unsigned long long)reserved << 20;
    out->free = (unsigned long long)free << 20, out->used = out->total - out->reserved - out->free;
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, Process *out)
{
    unsigned present = 0, room = *count;
    int code = device_unsigned(d, "processes", &present);
    *count = present;
    if (code == OK && present > room)
        return TOO_SMALL;
    for (unsigned i = 0; code == OK && i < present; i++)
        out[i] = (Process){1000 + i, 0, ~0u, ~0u};
    return code;
}

int nvmlDeviceGetPciInfo_v3(void *d, Pci *out)
{
    memset(out, 0, sizeof *out);
    return device_string(d, "bus", out->bus_id, sizeof out->bus_id);
}

int nvmlDeviceGetRemappedRows(void *d, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed)
{
    *uncorrected = 0;
    device_unsigned(d, "remap_pending", pending);
    device_unsigned(d, "remap_failed", failed);
    return device_unsigned(d, "remapped", corrected);
}

int nvmlDeviceGetFieldValues(void *d, int count, Field *fields)
{
    for (int i = 0; i < count; i++) {
        fields[i].type = TYPE_UNSIGNED_INT;
        fields[i].result = NOT_SUPPORTED;
        if (fields[i].id == FIELD_RECOVERY_ACTION)
            fields[i].result = device_unsigned(d, "recovery", &fields[i].value.ui);
    }
    return OK;
}

int nvmlEventSetCreate(void **out)
{
    *out = (void *)watched;
    memset(watched, 0, sizeof watched);
    return OK;
}

int nvmlEventSetFree(void *set) { (void)set; return OK; }

int nvmlDeviceRegisterEvents(void *d, unsigned long long types, void *set)
{
    long long told = 0;
    int code = device_number(d, "xids", &told);
    (void)types, (void)set;
    if (code == OK)
        watched[(size_t)d - 1].registered = 1, watched[(size_t)d - 1].told = told;
    return code;
}

int nvmlEventSetWait_v2(void *set, Event *out, unsigned timeout_ms)
{
    struct timespec pause = {0, 50000000};
    (void)set;
    for (unsigned waited_ms = 0;; waited_ms += 50) {
        for (int i = 0; i < MOST_DEVICES; i++) {
            void *handle = (void *)(size_t)(i + 1);
            long long told, xid = 0;
            if (!watched[i].registered || device_number(handle, "xids", &told) || told <= watched[i].told)
                continue;
            watched[i].told++;
            device_number(handle, "xid", &xid);
            *out = (Event){handle, XID_EVENT, (unsigned long long)xid, ~0u, ~0u};
            return OK;
        }
        if (waited_ms >= timeout_ms)
            return TIMEOUT;
        nanosleep(&pause, NULL);
    }
}
