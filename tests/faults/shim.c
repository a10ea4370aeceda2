/* Counts the calls that change a file system, and disturbs the k-th of them.

   Preloaded into a process (LD_PRELOAD), it stands between the program and the C library. What it is to do stands in a
   control file, which every process of an experiment maps, so that they count together; shim.py writes and reads it.
   Only calls on files below the folders named there count. Each is also noted in a log beside the control file.

   Every wrapper ends in a system call of its own, so the shim needs no symbol of the library that it stands before.
   Code that makes system calls by itself (Rust's rustix, glibc's own fopen) is not seen. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault { NONE, KILL, FAIL, FAIL_ON, FULL, LIE, TORN, STOP };
enum action { PASS, REFUSE, PRETEND, HALVE };

struct control {
    uint64_t count, at;   /* calls so far; the one to disturb, from 1 */
    uint32_t fault, error;
    char folders[4][1024];
};

static struct control *control;
static int log_fd = -1;

/* Begin to follow the control file at `path`; NULL for none. */
void faults_arm(const char *path) {
    char log[PATH_MAX];
    control = NULL;
    if (log_fd >= 0) close(log_fd);
    log_fd = -1;
    if (path == NULL) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    snprintf(log, sizeof log, "%s.log", path);
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (mapped != MAP_FAILED) control = mapped;
}

__attribute__((constructor)) static void begin(void) { faults_arm(getenv("FAULTS_CONTROL")); }

static void link_target(const char *link, char *into) {
    ssize_t n = readlink(link, into, PATH_MAX - 1);
    into[n < 0 ? 0 : n] = 0;
}

/* The absolute path of `path` seen from the folder `dir`, or of the open file `dir` where `path` is NULL. */
static void resolve(int dir, const char *path, char *into) {
    char link[64];
    if (path != NULL && path[0] == '/') {
        snprintf(into, PATH_MAX, "%s", path);
        return;
    }
    if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    link_target(link, into);
    size_t n = strlen(into);
    if (path != NULL) snprintf(into + n, PATH_MAX - n, "/%s", path);
}

static int watched(const char *path) {
    for (int i = 0; i < 4 && control->folders[i][0]; i++) {
        size_t n = strlen(control->folders[i]);
        if (strncmp(path, control->folders[i], n) == 0 && (path[n] == '/' || path[n] == 0)) return 1;
    }
    return 0;
}

/* Count one call; what is to become of it. `grows`: it needs room on the disk. */
static enum action step(const char *call, int dir, const char *path, int grows) {
    char where[PATH_MAX], line[PATH_MAX + 64];
    if (control == NULL) return PASS;
    int kept = errno;
    resolve(dir, path, where);
    errno = kept;
    if (!watched(where)) return PASS;
    uint64_t k = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (log_fd >= 0) {
        int n = snprintf(line, sizeof line, "%lu %s %s\n", (unsigned long)k, call, where);
        syscall(SYS_write, log_fd, line, (size_t)n);
    }
    int here = k == control->at, after = control->at && k >= control->at;
    switch (control->fault) {
        case KILL: if (here) { kill(0, SIGKILL); pause(); } return PASS;
        case FAIL: if (here) { errno = control->error; return REFUSE; } return PASS;
        case FAIL_ON: if (after) { errno = control->error; return REFUSE; } return PASS;
        case FULL: if (after && grows) { errno = ENOSPC; return REFUSE; } return PASS;
        case STOP: if (here) kill(0, SIGSTOP); return PASS;
        case LIE: return here ? PRETEND : PASS;
        case TORN: return here ? HALVE : PASS;
        default: return PASS;
    }
}

/* What the caller is told about a call that returned `result`. */
static long told(enum action action, long result) {
    if (action == HALVE) { kill(0, SIGKILL); pause(); }
    if (action == PRETEND && result >= 0) { errno = control->error; return -1; }
    return result;
}

/* `size` is the number of bytes to write, and may be halved; 1 for calls that write none. */
#define DISTURBED(call, dir, path, grows, size, real)          \
    enum action action = step(call, dir, path, grows);         \
    if (action == REFUSE) return -1;                           \
    if (action == HALVE && (size) > 1) size /= 2;              \
    return told(action, real)

static size_t whole = 1;

static int changes(int flags) { return (flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE; }

static int opened(int dir, const char *path, int flags, mode_t mode) {
    if (!changes(flags)) return syscall(SYS_openat, dir, path, flags, mode);
    enum action action = step("open", dir, path, 1);
    if (action == REFUSE) return -1;
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    if (action == PRETEND && fd >= 0) close(fd);
    return told(action, fd);
}

#define MODE va_list rest; va_start(rest, flags); \
    mode_t mode = changes(flags) ? va_arg(rest, mode_t) : 0; va_end(rest)

int open(const char *path, int flags, ...) { MODE; return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE; return opened(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE; return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE; return opened(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

ssize_t write(int fd, const void *data, size_t n) {
    DISTURBED("write", fd, NULL, 1, n, syscall(SYS_write, fd, data, n));
}
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
    DISTURBED("pwrite", fd, NULL, 1, n, syscall(SYS_pwrite64, fd, data, n, at));
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }
ssize_t writev(int fd, const struct iovec *parts, int n) {
    DISTURBED("writev", fd, NULL, 1, n, syscall(SYS_writev, fd, parts, n));
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t n, unsigned flags) {
    DISTURBED("copy", to, NULL, 1, n, syscall(SYS_copy_file_range, from, at, to, there, n, flags));
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) {
    DISTURBED("sendfile", to, NULL, 1, n, syscall(SYS_sendfile, to, from, at, n));
}
ssize_t sendfile(int to, int from, off_t *at, size_t n) { return sendfile64(to, from, at, n); }

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    DISTURBED("rename", b, to, 0, whole, syscall(SYS_renameat2, a, from, b, to, flags));
}
int renameat(int a, const char *from, int b, const char *to) { return renameat2(a, from, b, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dir, const char *path, int flags) {
    DISTURBED(flags & AT_REMOVEDIR ? "rmdir" : "unlink", dir, path, 0, whole, syscall(SYS_unlinkat, dir, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) { return unlink(path) == 0 ? 0 : errno == EISDIR ? rmdir(path) : -1; }

int mkdirat(int dir, const char *path, mode_t mode) {
    DISTURBED("mkdir", dir, path, 1, whole, syscall(SYS_mkdirat, dir, path, mode));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int a, const char *from, int b, const char *to, int flags) {
    DISTURBED("link", b, to, 1, whole, syscall(SYS_linkat, a, from, b, to, flags));
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int symlinkat(const char *target, int dir, const char *path) {
    DISTURBED("symlink", dir, path, 1, whole, syscall(SYS_symlinkat, target, dir, path));
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int ftruncate64(int fd, off_t n) { DISTURBED("truncate", fd, NULL, 0, whole, syscall(SYS_ftruncate, fd, n)); }
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int truncate64(const char *path, off_t n) {
    DISTURBED("truncate", AT_FDCWD, path, 0, whole, syscall(SYS_truncate, path, n));
}
int truncate(const char *path, off_t n) { return truncate64(path, n); }
int fallocate64(int fd, int mode, off_t at, off_t n) {
    DISTURBED("fallocate", fd, NULL, 1, whole, syscall(SYS_fallocate, fd, mode, at, n));
}
int fallocate(int fd, int mode, off_t at, off_t n) { return fallocate64(fd, mode, at, n); }
int posix_fallocate64(int fd, off_t at, off_t n) { return fallocate64(fd, 0, at, n) == 0 ? 0 : errno; }
int posix_fallocate(int fd, off_t at, off_t n) { return posix_fallocate64(fd, at, n); }

int fsync(int fd) { DISTURBED("fsync", fd, NULL, 0, whole, syscall(SYS_fsync, fd)); }
int fdatasync(int fd) { DISTURBED("fsync", fd, NULL, 0, whole, syscall(SYS_fdatasync, fd)); }
