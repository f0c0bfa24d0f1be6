/* A preload that makes a disk fail: writes to, or syncs of, the files that a pattern names end with EIO for as long as a test says so.

   HARNESS_FAIL_FILE   mapped by everybody: which calls fail, and how many did */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))

enum { NONE, WRITES, SYNCS };

static volatile struct orders {
    _Atomic int64_t calls, failed;
    char pattern[496];
} *orders;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HARNESS_FAIL_FILE");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) orders = page;
    syscall(SYS_close, fd);
}

/* Whether this call is to fail; counted if so. */
static int fails(int fd, int64_t call) {
    char link[64], path[PATH_MAX];
    if (!orders || orders->calls != call) return 0;
    char *end = link + sizeof link;
    *--end = 0;
    do *--end = '0' + fd % 10;
    while (fd /= 10);
    end -= 14;
    memcpy(end, "/proc/self/fd/", 14);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, end, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (fnmatch((const char *)orders->pattern, path, 0) != 0) return 0;
    orders->failed++;
    errno = EIO;
    return 1;
}

EXPORT ssize_t write(int fd, const void *data, size_t length) { return fails(fd, WRITES) ? -1 : syscall(SYS_write, fd, data, length); }
EXPORT ssize_t writev(int fd, const struct iovec *data, int count) { return fails(fd, WRITES) ? -1 : syscall(SYS_writev, fd, data, count); }

EXPORT ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return fails(fd, WRITES) ? -1 : syscall(SYS_pwrite64, fd, data, length, offset);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return pwrite(fd, data, length, offset); }
EXPORT int fsync(int fd) { return fails(fd, SYNCS) ? -1 : (int)syscall(SYS_fsync, fd); }
EXPORT int fdatasync(int fd) { return fails(fd, SYNCS) ? -1 : (int)syscall(SYS_fdatasync, fd); }
