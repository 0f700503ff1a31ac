/* Lets single calls of the C library fail or wait: LD_PRELOAD=faulty.so, and these variables, which a program may change as it runs.

   FAULTY_CALLS   names of calls, such as "fsync,rename"; open, read, write, rename and unlink stand for all of their kind, and create for
                  those of open that may write
   FAULTY_PATH    a part of the path that a call has to be about
   FAULTY_ERRNO   the error that the call returns; 0 or absent: none
   FAULTY_SIGNAL  a signal that the process gets instead of the call, such as 9
   FAULTY_MS      milliseconds to wait before the call
   FAULTY_SKIP    calls that go through before the first one that is hit; FAULTY_LIMIT: how many are hit (default: all)
   FAULTY_COUNT   a file that gets one byte for each call that matches
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static atomic_long matched;
static __thread int inside;

static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_open)(const char *, int, ...);

static long number(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}

static int hit(const char *call, const char *path) {
  const char *calls = getenv("FAULTY_CALLS"), *part = getenv("FAULTY_PATH"), *count = getenv("FAULTY_COUNT");
  if (inside || !calls || !*calls || !strstr(calls, call) || !path || (part && *part && !strstr(path, part))) return 0;
  inside = 1;
  long before = atomic_fetch_add(&matched, 1), skip = number("FAULTY_SKIP", 0), limit = number("FAULTY_LIMIT", LONG_MAX);
  if (count && *count) {
    if (!real_open) real_open = dlsym(RTLD_NEXT, "open");
    if (!real_write) real_write = dlsym(RTLD_NEXT, "write");
    int file = real_open(count, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (file >= 0) {
      real_write(file, ".", 1);
      close(file);
    }
  }
  inside = 0;
  if (before < skip || before - skip >= limit) return 0;
  long ms = number("FAULTY_MS", 0);
  struct timespec pause = {ms / 1000, (ms % 1000) * 1000000};
  if (ms) nanosleep(&pause, NULL);
  if (number("FAULTY_SIGNAL", 0)) kill(getpid(), (int)number("FAULTY_SIGNAL", 0));
  errno = (int)number("FAULTY_ERRNO", 0);
  return errno;
}

static int hit_file(const char *call, int file) {
  const char *calls = getenv("FAULTY_CALLS");
  if (inside || !calls || !*calls || !strstr(calls, call)) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return hit(call, path);
}

static int hit_at(const char *call, int folder, const char *name) {
  const char *calls = getenv("FAULTY_CALLS");
  if (inside || !calls || !*calls || !strstr(calls, call)) return 0;
  if (name[0] == '/' || folder == AT_FDCWD) return hit(call, name);
  char link[64], path[2 * PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, path, PATH_MAX);
  if (length < 0) return 0;
  snprintf(path + length, PATH_MAX, "/%s", name);
  return hit(call, path);
}

static const char *kind(int flags) {
  const char *calls = getenv("FAULTY_CALLS");
  int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
  return calls && strstr(calls, "open") ? "open" : writes ? "create" : "none";
}

#define REAL(name, type, ...)                        \
  static type (*real)(__VA_ARGS__);                  \
  if (!real) real = dlsym(RTLD_NEXT, #name)

int fsync(int file) { REAL(fsync, int, int); return hit_file("fsync", file) ? -1 : real(file); }
int fdatasync(int file) { REAL(fdatasync, int, int); return hit_file("fsync", file) ? -1 : real(file); }
ssize_t read(int file, void *to, size_t size) { REAL(read, ssize_t, int, void *, size_t); return hit_file("read", file) ? -1 : real(file, to, size); }
ssize_t pread64(int file, void *to, size_t size, off64_t at) { REAL(pread64, ssize_t, int, void *, size_t, off64_t); return hit_file("read", file) ? -1 : real(file, to, size, at); }
ssize_t pread(int file, void *to, size_t size, off_t at) { REAL(pread, ssize_t, int, void *, size_t, off_t); return hit_file("read", file) ? -1 : real(file, to, size, at); }
ssize_t write(int file, const void *from, size_t size) { REAL(write, ssize_t, int, const void *, size_t); return hit_file("write", file) ? -1 : real(file, from, size); }
ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) { REAL(pwrite64, ssize_t, int, const void *, size_t, off64_t); return hit_file("write", file) ? -1 : real(file, from, size, at); }
struct iovec;
ssize_t writev(int file, const struct iovec *parts, int count) { REAL(writev, ssize_t, int, const struct iovec *, int); return hit_file("write", file) ? -1 : real(file, parts, count); }
int rename(const char *from, const char *to) { REAL(rename, int, const char *, const char *); return hit("rename", to) ? -1 : real(from, to); }
int renameat(int a, const char *from, int b, const char *to) { REAL(renameat, int, int, const char *, int, const char *); return hit_at("rename", b, to) ? -1 : real(a, from, b, to); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir, int, const char *, mode_t); return hit("mkdir", path) ? -1 : real(path, mode); }
int unlink(const char *path) { REAL(unlink, int, const char *); return hit("unlink", path) ? -1 : real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat, int, int, const char *, int); return hit_at("unlink", folder, path) ? -1 : real(folder, path, flags); }
int rmdir(const char *path) { REAL(rmdir, int, const char *); return hit("unlink", path) ? -1 : real(path); }
int link(const char *from, const char *to) { REAL(link, int, const char *, const char *); return hit("link", to) ? -1 : real(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { REAL(linkat, int, int, const char *, int, const char *, int); return hit_at("link", b, to) ? -1 : real(a, from, b, to, flags); }
int utimensat(int folder, const char *path, const struct timespec times[2], int flags) { REAL(utimensat, int, int, const char *, const struct timespec *, int); return (path ? hit_at("touch", folder, path) : hit_file("touch", folder)) ? -1 : real(folder, path, times, flags); }

#define OPEN(name)                                                        \
  int name(const char *path, int flags, ...) {                            \
    va_list rest;                                                         \
    va_start(rest, flags);                                                \
    mode_t mode = va_arg(rest, mode_t);                                   \
    va_end(rest);                                                         \
    REAL(name, int, const char *, int, ...);                              \
    return hit(kind(flags), path) ? -1 : real(path, flags, mode);              \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                      \
  int name(int folder, const char *path, int flags, ...) {                \
    va_list rest;                                                         \
    va_start(rest, flags);                                                \
    mode_t mode = va_arg(rest, mode_t);                                   \
    va_end(rest);                                                         \
    REAL(name, int, int, const char *, int, ...);                         \
    return hit_at(kind(flags), folder, path) ? -1 : real(folder, path, flags, mode);      \
  }
OPENAT(openat)
OPENAT(openat64)
