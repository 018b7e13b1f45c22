/* LD_PRELOAD library: writes down, in their real order, the calls that change files below one folder.
 *
 * RADBOX_CRASH_ROOT   the folder (a real path); nothing outside it is recorded
 * RADBOX_CRASH_TRACE  file the records are appended to; "<trace>.lock" holds the mutex that orders all processes
 *
 * Each recorded call runs under that mutex, so the order of the records is the order of the effects, across threads
 * and processes. Files are named by inode, so that descriptors may be duplicated, inherited and renamed under.
 * RADBOX_CRASH_KILL    "KIND COUNT": SIGKILL for this process right after its COUNT-th call of KIND (0: of any)
 *
 * The application's own remarks (MARK, what it has promised by now) are appended by tools/crash/trace.py.
 * Layout of a record: struct head (native endian), first path, second path, bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE = 1, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, WRITE, TRUNCATE, ALLOCATE, SYNC, SYNC_ALL, MARK, MAPPED };

#define MAGIC 0x31525243u /* "CRR1" */

struct head {
    uint32_t magic, kind, pid, flags;
    uint64_t inode;
    int64_t offset;
    uint64_t size; /* bytes that follow the paths, or the size a TRUNCATE or ALLOCATE asks for */
    uint32_t first, second, bytes, spare;
};

static char root[PATH_MAX], trace[PATH_MAX];
static size_t root_length;
static unsigned kill_kind, kill_count, killable;
static pthread_mutex_t *order;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread int inside; /* a signal handler that writes while this thread holds the mutex must not wait for it */

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static int sys_open(const char *path, int flags) { return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600); }

static void start(void) {
    const char *folder = getenv("RADBOX_CRASH_ROOT"), *file = getenv("RADBOX_CRASH_TRACE");
    if (!folder || !file) return;
    char lock[PATH_MAX + 8];
    snprintf(trace, sizeof trace, "%s", file);
    snprintf(lock, sizeof lock, "%s.lock", file);
    int handle = sys_open(lock, O_RDWR);
    if (handle < 0) abort();
    order = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    if (order == MAP_FAILED) abort();
    syscall(SYS_close, handle);
    const char *end = getenv("RADBOX_CRASH_KILL");
    if (end && sscanf(end, "%u %u", &kill_kind, &kill_count) != 2) abort();
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
}

/* Called once by the parent, on a file of 4096 zero bytes, before anything is recorded. */
int crash_prepare(const char *lock) {
    int handle = sys_open(lock, O_RDWR);
    if (handle < 0) return -1;
    pthread_mutex_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    syscall(SYS_close, handle);
    if (shared == MAP_FAILED) return -1;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    int failed = pthread_mutex_init(shared, &kind);
    munmap(shared, 4096);
    return failed ? -1 : 0;
}

static int on(void) {
    pthread_once(&once, start);
    return root_length > 0 && !inside;
}

static void lock(void) {
    inside = 1;
    if (pthread_mutex_lock(order) == EOWNERDEAD) pthread_mutex_consistent(order);
}

static void unlock(void) {
    int kept = errno;
    pthread_mutex_unlock(order);
    inside = 0;
    errno = kept;
}

static void append(struct head *head, const char *first, const char *second, const struct iovec *bytes, int count) {
    int kept = errno;
    struct iovec parts[3 + 64];
    size_t length = 0;
    for (int i = 0; i < count; i++) length += bytes[i].iov_len;
    head->magic = MAGIC;
    head->pid = (uint32_t)getpid();
    head->first = first ? (uint32_t)strlen(first) : 0;
    head->second = second ? (uint32_t)strlen(second) : 0;
    head->bytes = (uint32_t)length;
    parts[0] = (struct iovec){head, sizeof *head};
    parts[1] = (struct iovec){(void *)(first ? first : ""), head->first};
    parts[2] = (struct iovec){(void *)(second ? second : ""), head->second};
    if (count > 64) abort();
    for (int i = 0; i < count; i++) parts[3 + i] = bytes[i];
    size_t whole = sizeof *head + head->first + head->second + length;
    int handle = sys_open(trace, O_WRONLY | O_APPEND | O_CREAT);
    if (handle < 0 || syscall(SYS_writev, handle, parts, 3 + count) != (long)whole) abort();
    syscall(SYS_close, handle);
    if (kill_count && (!kill_kind || kill_kind == head->kind) && ++killable == kill_count) kill(getpid(), SIGKILL);
    errno = kept;
}

/* --- paths --- */

static void normalise(char *path) { /* "." and ".." and "//" of an absolute path, by its letters */
    char *to = path, *from = path;
    while (*from) {
        while (*from == '/') from++;
        size_t length = strcspn(from, "/");
        if (length == 2 && from[0] == '.' && from[1] == '.') {
            while (to > path && *--to != '/') {}
        } else if (length && !(length == 1 && from[0] == '.')) {
            *to++ = '/';
            memmove(to, from, length);
            to += length;
        }
        from += length;
    }
    if (to == path) *to++ = '/';
    *to = 0;
}

static int below(const char *path) {
    return !strncmp(path, root, root_length) && (path[root_length] == 0 || path[root_length] == '/');
}

/* 1 if `path` (relative to the folder `at`) lies below the root; `out` is then its part below it, such as "/a/b". */
static int inner_path(int at, const char *path, char *out) {
    char whole[2 * PATH_MAX], link[64];
    if (!path) return 0;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, whole, PATH_MAX);
        if (length < 0) return 0;
        snprintf(whole + length, sizeof whole - (size_t)length, "/%s", path);
    }
    normalise(whole);
    if (!below(whole)) return 0;
    snprintf(out, PATH_MAX, "%s", whole + root_length);
    return 1;
}

/* Inode of the file or folder below the root that `handle` is open on, else 0. */
static uint64_t inner_inode(int handle) {
    char link[64], path[PATH_MAX];
    struct stat about;
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length <= 0) return 0;
    path[length] = 0;
    if (!below(path)) return 0;
    if (fstat(handle, &about) || !(S_ISREG(about.st_mode) || S_ISDIR(about.st_mode))) { errno = kept; return 0; }
    return about.st_ino;
}

static uint64_t inode_at(const char *inner) {
    char whole[2 * PATH_MAX];
    struct stat about;
    int kept = errno;
    snprintf(whole, sizeof whole, "%s%s", root, inner);
    int failed = lstat(whole, &about);
    errno = kept;
    return failed ? 0 : about.st_ino;
}

static void note(enum kind kind, uint64_t inode, const char *first, const char *second, int64_t offset, uint64_t size) {
    struct head head = {.kind = kind, .inode = inode, .offset = offset, .size = size};
    append(&head, first, second, NULL, 0);
}

/* --- open --- */

static int opened(int at, const char *path, int flags, mode_t mode, int (*call)(int, const char *, int, mode_t)) {
    char inner[PATH_MAX];
    int changes = flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE;
    if (!changes || !on() || !inner_path(at, path, inner)) return call(at, path, flags, mode);
    lock();
    uint64_t before = inode_at(inner);
    int handle = call(at, path, flags, mode);
    if (handle >= 0) {
        struct stat about;
        fstat(handle, &about);
        if ((flags & O_TMPFILE) == O_TMPFILE) note(CREATE, about.st_ino, "", NULL, 0, 0);
        else if (!before) note(CREATE, about.st_ino, inner, NULL, 0, 0);
        else if (flags & O_TRUNC) note(TRUNCATE, about.st_ino, NULL, NULL, 0, 0);
    }
    unlock();
    return handle;
}

static int call_openat(int at, const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

#define MODE(flags)                                                                   \
    mode_t mode = 0;                                                                  \
    if ((flags)&O_CREAT || ((flags)&O_TMPFILE) == O_TMPFILE) {                        \
        va_list rest;                                                                 \
        va_start(rest, flags);                                                        \
        mode = va_arg(rest, mode_t);                                                  \
        va_end(rest);                                                                 \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode, call_openat); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode, call_openat); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode, call_openat); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode, call_openat); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode, call_openat); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0, call_openat); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0, call_openat); }
int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0, call_openat); }
int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0, call_openat); }

FILE *fopen(const char *path, const char *how) {
    char inner[PATH_MAX];
    if (how[0] == 'r' || !on() || !inner_path(AT_FDCWD, path, inner)) return REAL(fopen)(path, how);
    lock();
    note(MAPPED, 0, inner, NULL, 0, 0); /* stdio writes past us: say so, the replay then fails loudly */
    unlock();
    return REAL(fopen)(path, how);
}
FILE *fopen64(const char *path, const char *how) { return fopen(path, how); }

/* --- bytes --- */

static ssize_t wrote(uint64_t inode, int handle, int64_t offset, ssize_t done, const struct iovec *parts, int count) {
    if (done <= 0) return done;
    if (offset < 0) offset = (int64_t)lseek(handle, 0, SEEK_CUR) - done;
    struct iovec kept[64];
    size_t left = (size_t)done;
    int used = 0;
    if (count > 64) abort();
    while (left && used < count) {
        kept[used] = parts[used];
        if (kept[used].iov_len > left) kept[used].iov_len = left;
        left -= kept[used++].iov_len;
    }
    struct head head = {.kind = WRITE, .inode = inode, .offset = offset, .size = (uint64_t)done};
    append(&head, NULL, NULL, kept, used);
    return done;
}

#define RECORDED(handle, offset, parts, count, call)                                       \
    uint64_t inode = on() ? inner_inode(handle) : 0;                                       \
    if (!inode) return call;                                                               \
    lock();                                                                                \
    ssize_t done = call;                                                                   \
    wrote(inode, handle, offset, done, parts, count);                                      \
    unlock();                                                                              \
    return done;

ssize_t write(int handle, const void *bytes, size_t size) {
    struct iovec part = {(void *)bytes, size};
    RECORDED(handle, -1, &part, 1, syscall(SYS_write, handle, bytes, size))
}
ssize_t pwrite(int handle, const void *bytes, size_t size, off_t offset) {
    struct iovec part = {(void *)bytes, size};
    RECORDED(handle, offset, &part, 1, syscall(SYS_pwrite64, handle, bytes, size, offset))
}
ssize_t pwrite64(int handle, const void *bytes, size_t size, off64_t offset) { return pwrite(handle, bytes, size, offset); }
ssize_t writev(int handle, const struct iovec *parts, int count) {
    RECORDED(handle, -1, parts, count, syscall(SYS_writev, handle, parts, count))
}
ssize_t pwritev(int handle, const struct iovec *parts, int count, off_t offset) {
    RECORDED(handle, offset, parts, count, REAL(pwritev)(handle, parts, count, offset))
}
ssize_t pwritev64(int handle, const struct iovec *parts, int count, off64_t offset) {
    return pwritev(handle, parts, count, offset);
}

/* What the kernel copied: read back from where it went. */
static void copied(uint64_t inode, int handle, int64_t offset, ssize_t done) {
    if (done <= 0) return;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    char *bytes = malloc((size_t)done);
    int reader = sys_open(link, O_RDONLY);
    if (offset < 0) offset = (int64_t)lseek(handle, 0, SEEK_CUR) - done;
    if (!bytes || reader < 0 || pread(reader, bytes, (size_t)done, offset) != done) abort();
    syscall(SYS_close, reader);
    struct iovec part = {bytes, (size_t)done};
    wrote(inode, handle, offset, done, &part, 1);
    free(bytes);
}

ssize_t sendfile(int to, int from, off_t *offset, size_t size) {
    uint64_t inode = on() ? inner_inode(to) : 0;
    if (!inode) return syscall(SYS_sendfile, to, from, offset, size);
    lock();
    ssize_t done = syscall(SYS_sendfile, to, from, offset, size);
    copied(inode, to, -1, done);
    unlock();
    return done;
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) { return sendfile(to, from, offset, size); }
ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags) {
    uint64_t inode = on() ? inner_inode(to) : 0;
    if (!inode) return syscall(SYS_copy_file_range, from, in, to, out, size, flags);
    lock();
    int64_t offset = out ? *out : -1;
    ssize_t done = syscall(SYS_copy_file_range, from, in, to, out, size, flags);
    copied(inode, to, offset, done);
    unlock();
    return done;
}

#define SIMPLE(handle, call, kind, offset, size)                \
    uint64_t inode = on() ? inner_inode(handle) : 0;            \
    if (!inode) return call;                                    \
    lock();                                                     \
    int failed = call;                                          \
    if (!failed) note(kind, inode, NULL, NULL, offset, size);   \
    unlock();                                                   \
    return failed;

int ftruncate(int handle, off_t size) {
    SIMPLE(handle, (int)syscall(SYS_ftruncate, handle, size), TRUNCATE, 0, (uint64_t)size)
}
int ftruncate64(int handle, off64_t size) { return ftruncate(handle, size); }
int fallocate(int handle, int how, off_t offset, off_t size) {
    /* Anything but plain growth is not modelled and is told as MAPPED. */
    SIMPLE(handle, (int)syscall(SYS_fallocate, handle, how, offset, size),
           how == 0 ? ALLOCATE : MAPPED, offset, (uint64_t)size)
}
int fallocate64(int handle, int how, off64_t offset, off64_t size) { return fallocate(handle, how, offset, size); }
int posix_fallocate(int handle, off_t offset, off_t size) {
    SIMPLE(handle, REAL(posix_fallocate)(handle, offset, size), ALLOCATE, offset, (uint64_t)size)
}
int posix_fallocate64(int handle, off64_t offset, off64_t size) { return posix_fallocate(handle, offset, size); }
int fsync(int handle) { SIMPLE(handle, (int)syscall(SYS_fsync, handle), SYNC, 0, 0) }
int fdatasync(int handle) { SIMPLE(handle, (int)syscall(SYS_fdatasync, handle), SYNC, 0, 0) }
int syncfs(int handle) { SIMPLE(handle, (int)syscall(SYS_syncfs, handle), SYNC_ALL, 0, 0) }
void sync(void) {
    syscall(SYS_sync);
    if (on()) { lock(); note(SYNC_ALL, 0, NULL, NULL, 0, 0); unlock(); }
}
int truncate(const char *path, off_t size) {
    int handle = open(path, O_WRONLY | O_CLOEXEC);
    if (handle < 0) return -1;
    int failed = ftruncate(handle, size), kept = errno;
    close(handle);
    errno = kept;
    return failed;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

void *mmap(void *at, size_t size, int rights, int flags, int handle, off_t offset) {
    if (handle >= 0 && rights & PROT_WRITE && flags & MAP_SHARED && on() && inner_inode(handle)) {
        char link[64], path[PATH_MAX] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length < 0 ? 0 : length] = 0;
        lock();
        note(MAPPED, inner_inode(handle), path + root_length, NULL, 0, 0);
        unlock();
    }
    return (void *)syscall(SYS_mmap, at, size, rights, flags, handle, offset);
}
void *mmap64(void *at, size_t size, int rights, int flags, int handle, off64_t offset) {
    return mmap(at, size, rights, flags, handle, offset);
}

/* --- names --- */

#define NAMED(at, path, call, kind)                                                       \
    char inner[PATH_MAX];                                                                 \
    if (!on() || !inner_path(at, path, inner)) return call;                               \
    lock();                                                                               \
    int failed = call;                                                                    \
    if (!failed) note(kind, kind == UNLINK || kind == RMDIR ? 0 : inode_at(inner), inner, NULL, 0, 0); \
    unlock();                                                                             \
    return failed;

int mkdirat(int at, const char *path, mode_t mode) { NAMED(at, path, (int)syscall(SYS_mkdirat, at, path, mode), MKDIR) }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int unlinkat(int at, const char *path, int flags) {
    NAMED(at, path, (int)syscall(SYS_unlinkat, at, path, flags), flags & AT_REMOVEDIR ? RMDIR : UNLINK)
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int failed = unlink(path);
    return failed && errno == EISDIR ? rmdir(path) : failed;
}
int linkat(int from, const char *old, int to, const char *path, int flags) {
    NAMED(to, path, (int)syscall(SYS_linkat, from, old, to, path, flags), LINK)
}
int link(const char *old, const char *path) { return linkat(AT_FDCWD, old, AT_FDCWD, path, 0); }
int symlinkat(const char *target, int at, const char *path) {
    char inner[PATH_MAX];
    if (!on() || !inner_path(at, path, inner)) return (int)syscall(SYS_symlinkat, target, at, path);
    lock();
    int failed = (int)syscall(SYS_symlinkat, target, at, path);
    if (!failed) note(SYMLINK, inode_at(inner), inner, target, 0, 0);
    unlock();
    return failed;
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int renameat2(int from, const char *old, int to, const char *path, unsigned flags) {
    char source[PATH_MAX], goal[PATH_MAX];
    int in = on() ? inner_path(from, old, source) : 0, out = on() ? inner_path(to, path, goal) : 0;
    if (!in && !out) return (int)syscall(SYS_renameat2, from, old, to, path, flags);
    lock();
    int failed = (int)syscall(SYS_renameat2, from, old, to, path, flags);
    if (!failed) {
        struct head head = {.kind = in && out && !(flags & RENAME_EXCHANGE) ? RENAME : MAPPED, .flags = flags};
        append(&head, in ? source : goal, out ? goal : source, NULL, 0);
    }
    unlock();
    return failed;
}
int renameat(int from, const char *old, int to, const char *path) { return renameat2(from, old, to, path, 0); }
int rename(const char *old, const char *path) { return renameat2(AT_FDCWD, old, AT_FDCWD, path, 0); }
