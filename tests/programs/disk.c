/* A simulated disk that can lose its power or run full, as a library to preload.

   DISK_FOLDER  the folder on the simulated disk.
   DISK_SHADOW  a folder with a copy of each file as of its last fsync. A power cut leaves these copies.
   DISK_SYNCS   a file that gets a line with the file's name for each fsync.
   DISK_FULL    a file. While it exists, each write in the folder fails with ENOSPC.
   DISK_ROOM    a file with a number of bytes. While it exists, the files of the folder cannot grow beyond so many
                together. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* The name of an open file inside the folder, or NULL. */
static const char *name_of(int fd, char *path) {
    const char *folder = getenv("DISK_FOLDER");
    char link[64];
    struct stat status;
    if (!folder || fstat(fd, &status) || !S_ISREG(status.st_mode)) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0) return NULL;
    path[size] = 0;
    size_t length = strlen(folder);
    return strncmp(path, folder, length) || path[length] != '/' ? NULL : path + length + 1;
}

static void fail(const char *what) {
    perror(what);
    abort();
}

static void note(const char *name) {
    if (!getenv("DISK_SYNCS")) return;
    int fd = open(getenv("DISK_SYNCS"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (fd < 0 || dprintf(fd, "%s\n", name) < 0) fail("DISK_SYNCS");
    close(fd);
}

static void copy(int from, const char *name) {
    static char bytes[1 << 20];
    char path[PATH_MAX];
    if (!getenv("DISK_SHADOW")) return;
    snprintf(path, sizeof path, "%s/%s", getenv("DISK_SHADOW"), name);
    int to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (to < 0) fail("DISK_SHADOW");
    off_t at = 0;
    for (ssize_t size; (size = pread(from, bytes, sizeof bytes, at)) > 0; at += size)
        if (write(to, bytes, size) != size) fail("DISK_SHADOW");
    close(to);
}

static int synced(const char *call, int fd) {
    char path[PATH_MAX];
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    int result = real(fd);
    const char *name = result ? NULL : name_of(fd, path);
    if (name) {
        copy(fd, name);
        note(name);
    }
    return result;
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }

/* A deleted file leaves the shadow too: SQLite deletes the journal of the transaction that created the schema. */
int unlink(const char *path) {
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    const char *folder = getenv("DISK_FOLDER"), *shadow = getenv("DISK_SHADOW");
    int result = real(path);
    if (!result && folder && shadow && !strncmp(path, folder, strlen(folder))) {
        char other[PATH_MAX];
        snprintf(other, sizeof other, "%s%s", shadow, path + strlen(folder));
        real(other);
    }
    return result;
}

/* The bytes of all files in the folder. */
static off_t used(int folder) {
    off_t sum = 0;
    DIR *listed = fdopendir(folder);
    for (struct dirent *each; listed && (each = readdir(listed));) {
        struct stat status;
        if (!fstatat(dirfd(listed), each->d_name, &status, AT_SYMLINK_NOFOLLOW) && S_ISREG(status.st_mode))
            sum += status.st_size;
    }
    if (listed) closedir(listed);
    return sum;
}

/* Whether a write that ends at this place would need more room than the disk has. */
static int exceeds(int fd, off_t end) {
    char text[32] = "";
    struct stat status;
    int room = open(getenv("DISK_ROOM"), O_RDONLY);
    if (room < 0) return 0;
    ssize_t length = read(room, text, sizeof text - 1);
    close(room);
    if (length < 0 || fstat(fd, &status) || end <= status.st_size) return 0;
    off_t unnamed = status.st_nlink ? 0 : status.st_size;
    return used(open(getenv("DISK_FOLDER"), O_RDONLY | O_DIRECTORY)) + unnamed + end - status.st_size > atoll(text);
}

static int full(int fd, off_t end) {
    char path[PATH_MAX];
    if (getenv("DISK_FULL") && !access(getenv("DISK_FULL"), F_OK) && name_of(fd, path)) return 1;
    return getenv("DISK_ROOM") && name_of(fd, path) && exceeds(fd, end);
}

#define NO_ROOM(fd, end) if (full(fd, end)) { errno = ENOSPC; return -1; }

ssize_t write(int fd, const void *bytes, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    NO_ROOM(fd, lseek(fd, 0, SEEK_CUR) + (off_t)size)
    return real(fd, bytes, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    NO_ROOM(fd, at + (off_t)size)
    return real(fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) =
        (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    NO_ROOM(fd, at + (off_t)size)
    return real(fd, bytes, size, at);
}

static int allocated(const char *call, int fd, off_t at, off_t size) {
    int (*real)(int, off_t, off_t) = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, call);
    return full(fd, at + size) ? ENOSPC : real(fd, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size) { return allocated("posix_fallocate", fd, at, size); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return allocated("posix_fallocate64", fd, at, size); }

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    ssize_t (*real)(int, const struct iovec *, int, off_t) =
        (ssize_t (*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, "pwritev");
    off_t end = at;
    for (int part = 0; part < count; part++) end += (off_t)parts[part].iov_len;
    NO_ROOM(fd, end)
    return real(fd, parts, count, at);
}
