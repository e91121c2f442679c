/* A library to preload: calls of the file system on paths that match a pattern fail.

   FAIL_CALLS    names of calls, separated by commas: open write fsync rename unlink link
   FAIL_PATTERN  of fnmatch(3), for the whole path
   FAIL_ERRNO    the number of the error
   FAIL_FROM     the first call that fails, counted from 1; all later ones fail too
   Writes that fail with ENOSPC first write half of their bytes once, as a disk that fills up does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long seen;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Whether a word is in a list with commas. */
static int named(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (!at[length] || at[length] == ',')) return 1;
    return 0;
}

/* The number of this call among those that match, if it must fail; else 0. */
static long fails(const char *call, const char *path) {
    const char *calls = getenv("FAIL_CALLS"), *pattern = getenv("FAIL_PATTERN"), *from = getenv("FAIL_FROM");
    if (!calls || !pattern || !path || !named(calls, call) || fnmatch(pattern, path, 0)) return 0;
    long first = from ? atol(from) : 1, number = atomic_fetch_add(&seen, 1) + 1;
    if (number < first) return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    return number - first + 1;
}

static const char *path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return path;
}

static const char *absolute(const char *name, char *path) {
    if (name[0] == '/' || !getcwd(path, PATH_MAX)) return name;
    size_t length = strlen(path);
    snprintf(path + length, PATH_MAX - length, "/%s", name);
    return path;
}

static ssize_t failing_write(int file, const void *data, size_t count, off64_t offset, int at) {
    char path[PATH_MAX];
    int kept = errno;
    long number = fails("write", path_of(file, path));
    if (number && (number > 1 || errno != ENOSPC || count < 2)) return -1;
    if (number) count /= 2;
    errno = kept;
    return at ? NEXT(pwrite64)(file, data, count, offset) : NEXT(write)(file, data, count);
}

ssize_t write(int file, const void *data, size_t count) { return failing_write(file, data, count, 0, 0); }
ssize_t pwrite(int file, const void *data, size_t count, off_t offset) { return failing_write(file, data, count, offset, 1); }
ssize_t pwrite64(int file, const void *data, size_t count, off64_t offset) { return failing_write(file, data, count, offset, 1); }

#define ON_FILE(name)                                          \
    int name(int file) {                                       \
        char path[PATH_MAX];                                   \
        return fails("fsync", path_of(file, path)) ? -1 : NEXT(name)(file); \
    }
ON_FILE(fsync)
ON_FILE(fdatasync)

#define ON_NAMES(name, call, parameters, arguments, path)      \
    int name parameters {                                      \
        char room[PATH_MAX];                                   \
        return fails(call, absolute(path, room)) ? -1 : NEXT(name) arguments; \
    }
ON_NAMES(rename, "rename", (const char *from, const char *to), (from, to), to)
ON_NAMES(renameat, "rename", (int at, const char *from, int to_at, const char *to), (at, from, to_at, to), to)
ON_NAMES(unlink, "unlink", (const char *path), (path), path)
ON_NAMES(link, "link", (const char *from, const char *to), (from, to), to)
ON_NAMES(linkat, "link", (int at, const char *from, int to_at, const char *to, int flags), (at, from, to_at, to, flags), to)
ON_NAMES(unlinkat, "unlink", (int at, const char *path, int flags), (at, path, flags), path)

#define OPENS(name, parameters, arguments)                     \
    int name parameters {                                      \
        char room[PATH_MAX];                                   \
        va_list rest;                                          \
        va_start(rest, flags);                                 \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                          \
        return (flags & O_ACCMODE) != O_RDONLY && fails("open", absolute(path, room)) ? -1 : NEXT(name) arguments; \
    }
OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPENS(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

/* TensorFlow writes its events through these, and the C library's own calls cannot be replaced. */
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    char path[PATH_MAX];
    return fails("write", path_of(fileno(file), path)) ? 0 : NEXT(fwrite)(data, size, count, file);
}
int fflush(FILE *file) {
    char path[PATH_MAX];
    return file && fails("write", path_of(fileno(file), path)) ? EOF : NEXT(fflush)(file);
}
