/* A preload that writes down everything a process does to the files below one folder, so that powerloss.py can make what a power cut would leave.

   HARNESS_DISK_ROOT   the folder (absolute, resolved)
   HARNESS_DISK_SIDE   a folder outside of it: `seq` is a counter that all processes share, PID.log what process PID did, `boot_id` is read instead of the kernel's

   A record is written before its system call (what others can see is on record), and taken back if the call fails. Its number is drawn before the call, too, so
   an operation that followed from another has a higher one. A sync's record comes after it and says which number it began at: it covers what was
   lower. Not seen: stores into shared mappings (SQLite's -shm, which means nothing after a power cut). sync_file_range, O_SYNC and O_DSYNC count for nothing. */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))
#define MAGIC 0x31524c50u

enum { WRITE = 1, TRUNCATE, SYNC, CREATE, MKDIR, RENAME, UNLINK, RMDIR, LINK, SYMLINK, AMEND, EXTEND };

struct record {
    uint32_t magic, data_length;
    uint16_t kind, name_length, name2_length, zeros;
    uint64_t seq, inode, inode2, a, b;
};

static char root[PATH_MAX], side[PATH_MAX];
static size_t root_length;
static _Atomic uint64_t *sequence;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static pid_t log_pid;

static void die(const char *what) {
    char text[256];
    int length = snprintf(text, sizeof text, "powerloss.c: %s: %s\n", what, strerror(errno));
    syscall(SYS_write, 2, text, length);
    abort();
}

static int sys_open(int at, const char *path, int flags, mode_t mode) { return (int)syscall(SYS_openat, at, path, flags, mode); }

static void after_fork(void) { pthread_mutex_init(&lock, NULL); }

__attribute__((constructor)) static void begin(void) {
    const char *wanted = getenv("HARNESS_DISK_ROOT"), *aside = getenv("HARNESS_DISK_SIDE");
    char path[PATH_MAX + 8];
    if (!wanted || !aside) return;
    snprintf(side, sizeof side, "%s", aside);
    snprintf(path, sizeof path, "%s/seq", side);
    int fd = sys_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_ftruncate, fd, 8) < 0) die(path);
    void *page = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) die("mmap");
    syscall(SYS_close, fd);
    pthread_atfork(NULL, NULL, after_fork);
    sequence = page;
    snprintf(root, sizeof root, "%s", wanted);
    root_length = strlen(root);
}

static uint64_t next(void) { return atomic_fetch_add(sequence, 1) + 1; }

/* --- is it ours? */

static int below_root(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < (ssize_t)root_length) return 0;
    path[length] = 0;
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int stat_fd(int fd, struct stat *found) { return fstat(fd, found); }

/* The inode of a regular file below the root, else 0. */
static uint64_t tracked(int fd) {
    struct stat found;
    int saved = errno;
    uint64_t inode = sequence && stat_fd(fd, &found) == 0 && S_ISREG(found.st_mode) && below_root(fd) ? found.st_ino : 0;
    errno = saved;
    return inode;
}

struct place {
    int fd; /* of the parent folder, -1: not ours */
    uint64_t inode;
    char path[PATH_MAX];
    const char *name;
};

static int find_place(int at, const char *path, struct place *place) {
    struct stat found;
    int saved = errno;
    place->fd = -1;
    size_t length = strlen(path);
    if (!sequence || length == 0 || length >= PATH_MAX) return 0;
    memcpy(place->path, path, length + 1);
    while (length > 1 && place->path[length - 1] == '/') place->path[--length] = 0;
    char *slash = strrchr(place->path, '/');
    const char *parent = ".";
    place->name = slash ? slash + 1 : place->path;
    if (slash == place->path) parent = "/";
    else if (slash) *slash = 0, parent = place->path;
    int fd = sys_open(at, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd >= 0 && below_root(fd) && stat_fd(fd, &found) == 0) place->fd = fd, place->inode = found.st_ino;
    else if (fd >= 0) syscall(SYS_close, fd);
    errno = saved;
    return place->fd >= 0;
}

static void leave(struct place *place) {
    int saved = errno;
    if (place->fd >= 0) syscall(SYS_close, place->fd);
    errno = saved;
}

static uint64_t inode_at(struct place *place, mode_t *mode) {
    struct stat found;
    int saved = errno;
    uint64_t inode = fstatat(place->fd, place->name, &found, AT_SYMLINK_NOFOLLOW) == 0 ? found.st_ino : 0;
    if (inode && mode) *mode = found.st_mode;
    errno = saved;
    return inode;
}

/* --- records */

static void note(struct record record, const char *name, const char *name2, const struct iovec *data, int count) {
    struct iovec all[3 + 64];
    int parts = 0, saved = errno;
    record.magic = MAGIC;
    record.name_length = name ? strlen(name) : 0;
    record.name2_length = name2 ? strlen(name2) : 0;
    all[parts++] = (struct iovec){&record, sizeof record};
    if (name) all[parts++] = (struct iovec){(char *)name, record.name_length};
    if (name2) all[parts++] = (struct iovec){(char *)name2, record.name2_length};
    if (count > 64) die("too many pieces in one write");
    for (int i = 0; i < count; i++) all[parts++] = data[i];
    pthread_mutex_lock(&lock);
    pid_t pid = getpid();
    if (log_pid != pid) {
        char path[PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/%d.log", side, pid);
        if (log_fd >= 0) syscall(SYS_close, log_fd);
        int fd = sys_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0) die(path);
        log_fd = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 500);
        if (log_fd < 0) die("dup");
        syscall(SYS_close, fd);
        log_pid = pid;
    }
    ssize_t total = 0, written;
    for (int i = 0; i < parts; i++) total += all[i].iov_len;
    written = syscall(SYS_writev, log_fd, all, parts);
    if (written != total) die("the record of an operation could not be written");
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static void amend(uint64_t seq, int64_t done) { note((struct record){.kind = AMEND, .seq = seq, .a = done > 0 ? done : 0}, NULL, NULL, NULL, 0); }

static int all_zero(const char *data, size_t length) { return length > 4096 && data[0] == 0 && memcmp(data, data + 1, length - 1) == 0; }

static uint64_t note_write(uint64_t inode, int64_t offset, const struct iovec *data, int count) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += data[i].iov_len;
    struct record record = {.kind = WRITE, .inode = inode, .a = offset, .b = length, .data_length = length, .seq = next()};
    if (count == 1 && all_zero(data[0].iov_base, length)) record.zeros = 1, record.data_length = 0, count = 0;
    note(record, NULL, NULL, data, count);
    return record.seq;
}

static int64_t position(int fd) {
    struct stat found;
    int flags = (int)syscall(SYS_fcntl, fd, F_GETFL);
    if (flags >= 0 && flags & O_APPEND) return stat_fd(fd, &found) == 0 ? found.st_size : 0;
    return syscall(SYS_lseek, fd, 0, SEEK_CUR);
}

/* --- data */

static ssize_t put(int fd, const struct iovec *data, int count, off_t offset, int here) {
    uint64_t inode = tracked(fd), seq = 0;
    size_t length = 0;
    for (int i = 0; i < count; i++) length += data[i].iov_len;
    if (inode && length) seq = note_write(inode, here ? position(fd) : offset, data, count);
    ssize_t done = here ? syscall(SYS_writev, fd, data, count) : syscall(SYS_pwritev, fd, data, count, (long)offset, 0L);
    if (seq && done != (ssize_t)length) amend(seq, done);
    return done;
}

EXPORT ssize_t write(int fd, const void *data, size_t length) {
    struct iovec one = {(void *)data, length};
    if (!sequence) return syscall(SYS_write, fd, data, length);
    return put(fd, &one, 1, 0, 1);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    struct iovec one = {(void *)data, length};
    return put(fd, &one, 1, offset, 0);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return pwrite(fd, data, length, offset); }
EXPORT ssize_t writev(int fd, const struct iovec *data, int count) { return put(fd, data, count, 0, 1); }
EXPORT ssize_t pwritev(int fd, const struct iovec *data, int count, off_t offset) { return put(fd, data, count, offset, 0); }
EXPORT ssize_t pwritev64(int fd, const struct iovec *data, int count, off_t offset) { return put(fd, data, count, offset, 0); }

EXPORT ssize_t pwritev2(int fd, const struct iovec *data, int count, off_t offset, int flags) {
    (void)flags;
    return put(fd, data, count, offset, offset == -1);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *data, int count, off_t offset, int flags) { return pwritev2(fd, data, count, offset, flags); }


/* Copies inside the kernel: the caller is told to copy by itself. */
EXPORT ssize_t copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t length, unsigned flags) {
    if (tracked(out)) return errno = EXDEV, -1;
    return syscall(SYS_copy_file_range, in, in_offset, out, out_offset, length, flags);
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
    if (tracked(out)) return errno = ENOTSOCK, -1;
    return syscall(SYS_sendfile, out, in, offset, length);
}

EXPORT ssize_t sendfile64(int out, int in, off_t *offset, size_t length) { return sendfile(out, in, offset, length); }

EXPORT int ftruncate(int fd, off_t size) {
    uint64_t inode = tracked(fd), seq = inode ? next() : 0;
    if (inode) note((struct record){.kind = TRUNCATE, .inode = inode, .a = size, .seq = seq}, NULL, NULL, NULL, 0);
    int failed = (int)syscall(SYS_ftruncate, fd, size);
    if (inode && failed) amend(seq, 0);
    return failed;
}

EXPORT int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

EXPORT int truncate(const char *path, off_t size) {
    int fd = sys_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int failed = ftruncate(fd, size), saved = errno;
    syscall(SYS_close, fd);
    errno = saved;
    return failed;
}

EXPORT int truncate64(const char *path, off_t size) { return truncate(path, size); }

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length) {
    uint64_t inode = tracked(fd), seq = inode ? next() : 0;
    if (inode && mode != 0) return errno = EOPNOTSUPP, -1;
    if (inode) note((struct record){.kind = EXTEND, .inode = inode, .a = offset + length, .seq = seq}, NULL, NULL, NULL, 0);
    int failed = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (inode && failed) amend(seq, 0);
    return failed;
}

EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
EXPORT int posix_fallocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length) ? errno : 0; }
EXPORT int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }

/* --- syncs */

static int sync_fd(int fd, long call) {
    struct stat found;
    uint64_t begun = sequence ? next() : 0;
    int failed = (int)syscall(call, fd);
    if (!failed && sequence && stat_fd(fd, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)) && below_root(fd))
        note((struct record){.kind = SYNC, .inode = found.st_ino, .a = begun, .seq = next()}, NULL, NULL, NULL, 0);
    return failed;
}

EXPORT int fsync(int fd) { return sync_fd(fd, SYS_fsync); }
EXPORT int fdatasync(int fd) { return sync_fd(fd, SYS_fdatasync); }

/* --- names */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    struct place place;
    struct stat found;
    if (!sequence) return sys_open(at, path, flags, mode);
    if (!(flags & (O_CREAT | O_TRUNC))) {
        if (strcmp(path, "/proc/sys/kernel/random/boot_id") == 0) {
            char own[PATH_MAX + 16];
            snprintf(own, sizeof own, "%s/boot_id", side);
            int fd = sys_open(AT_FDCWD, own, flags, mode);
            if (fd >= 0) return fd;
        }
        return sys_open(at, path, flags, mode);
    }
    if ((flags & O_TMPFILE) == O_TMPFILE || !find_place(at, path, &place)) return sys_open(at, path, flags, mode);
    uint64_t before = inode_at(&place, NULL), seq = next();
    int fd = sys_open(at, path, flags, mode);
    if (fd >= 0 && stat_fd(fd, &found) == 0 && S_ISREG(found.st_mode)) {
        if (!before)
            note((struct record){.kind = CREATE, .inode = place.inode, .inode2 = found.st_ino, .a = found.st_mode & 07777, .seq = seq}, place.name, NULL, NULL, 0);
        else if (flags & O_TRUNC)
            note((struct record){.kind = TRUNCATE, .inode = found.st_ino, .a = 0, .seq = seq}, NULL, NULL, NULL, 0);
    }
    leave(&place);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0; }

#define OPEN_LIKE(name, parameters, at, path)          \
    EXPORT int name parameters {                       \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode_t mode = mode_of(flags, rest);            \
        va_end(rest);                                  \
        return open_at(at, path, flags, mode);         \
    }
OPEN_LIKE(open, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN_LIKE(open64, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN_LIKE(openat, (int at, const char *path, int flags, ...), at, path)
OPEN_LIKE(openat64, (int at, const char *path, int flags, ...), at, path)
EXPORT int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
EXPORT int __openat64_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
EXPORT int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *path, mode_t mode) { return creat(path, mode); }

EXPORT int mkdirat(int at, const char *path, mode_t mode) {
    struct place place;
    if (!find_place(at, path, &place)) return (int)syscall(SYS_mkdirat, at, path, mode);
    uint64_t seq = next();
    int failed = (int)syscall(SYS_mkdirat, at, path, mode);
    mode_t got = 0;
    uint64_t made = failed ? 0 : inode_at(&place, &got);
    if (made) note((struct record){.kind = MKDIR, .inode = place.inode, .inode2 = made, .a = got & 07777, .seq = seq}, place.name, NULL, NULL, 0);
    leave(&place);
    return failed;
}

EXPORT int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

EXPORT int renameat2(int at, const char *old, int at2, const char *new, unsigned flags) {
    struct place from, to;
    int ours = find_place(at, old, &from), theirs = find_place(at2, new, &to);
    if (!ours && !theirs) return (int)syscall(SYS_renameat2, at, old, at2, new, flags);
    if (ours != theirs || flags) { /* out of the folder or into it: another disk, so the caller has to copy */
        leave(&from);
        leave(&to);
        return errno = flags ? EINVAL : EXDEV, -1;
    }
    uint64_t seq = next();
    note((struct record){.kind = RENAME, .inode = from.inode, .inode2 = to.inode, .a = inode_at(&from, NULL), .seq = seq}, from.name, to.name, NULL, 0);
    int failed = (int)syscall(SYS_renameat2, at, old, at2, new, 0);
    if (failed) amend(seq, 0);
    leave(&from);
    leave(&to);
    return failed;
}

EXPORT int renameat(int at, const char *old, int at2, const char *new) { return renameat2(at, old, at2, new, 0); }
EXPORT int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

EXPORT int unlinkat(int at, const char *path, int flags) {
    struct place place;
    if (!find_place(at, path, &place)) return (int)syscall(SYS_unlinkat, at, path, flags);
    uint64_t seq = next();
    note((struct record){.kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK, .inode = place.inode, .a = inode_at(&place, NULL), .seq = seq}, place.name, NULL, NULL, 0);
    int failed = (int)syscall(SYS_unlinkat, at, path, flags);
    if (failed) amend(seq, 0);
    leave(&place);
    return failed;
}

EXPORT int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
EXPORT int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

EXPORT int linkat(int at, const char *old, int at2, const char *new, int flags) {
    struct place to;
    if (!find_place(at2, new, &to)) return (int)syscall(SYS_linkat, at, old, at2, new, flags);
    uint64_t seq = next();
    int failed = (int)syscall(SYS_linkat, at, old, at2, new, flags);
    if (!failed) note((struct record){.kind = LINK, .inode = to.inode, .inode2 = inode_at(&to, NULL), .seq = seq}, to.name, NULL, NULL, 0);
    leave(&to);
    return failed;
}

EXPORT int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

EXPORT int symlinkat(const char *target, int at, const char *path) {
    struct place place;
    if (!find_place(at, path, &place)) return (int)syscall(SYS_symlinkat, target, at, path);
    uint64_t seq = next();
    int failed = (int)syscall(SYS_symlinkat, target, at, path);
    if (!failed) note((struct record){.kind = SYMLINK, .inode = place.inode, .inode2 = inode_at(&place, NULL), .seq = seq}, place.name, target, NULL, 0);
    leave(&place);
    return failed;
}

EXPORT int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
