/*
 * What a power cut leaves: a library to be preloaded into the program under test.
 *
 * Every fsync and fdatasync below $POWERCUT_DIR copies what it makes durable to $POWERCUT_SHADOW.
 * After SIGKILL the shadow is the disk as a power cut leaves it in the worst case that is allowed:
 * nothing that was not synced is there, neither content nor names.
 *
 *   files/INODE       content of a file at its last fsync or fdatasync
 *   dirs/INODE/NAME   entries of a directory at its last fsync: a file is a hard link to
 *                     files/INODE, a directory a symbolic link to ../INODE
 *
 * A sync does not make the file's own name durable (ext4 mostly does; the standard promises
 * nothing), sync_file_range makes nothing durable. Writes through mmap are not seen. The real
 * syncs are not made: the shadow stands for the disk.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLOTS (1u << 16)

/*
 * Octets of a file written since its last sync: low <= octet < high. Unless all writes are known
 * (the file was made or synced by this process), a sync copies the whole file.
 */
struct range {
	ino_t inode;
	off_t low, high;
	int known;
};

static char directory[PATH_MAX], shadow[PATH_MAX / 2];
static dev_t device;
static int active;
static struct range ranges[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The next library's function of this name. */
#define NEXT(result, name, ...)                                        \
	static result (*next_##name)(__VA_ARGS__);                     \
	if (!next_##name) {                                            \
		*(void **)&next_##name = dlsym(RTLD_NEXT, #name);      \
	}

static void die(const char *what)
{
	fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static struct range *range_of(ino_t inode)
{
	for (unsigned n = 0; n < SLOTS; n++) {
		struct range *range = &ranges[(inode + n) % SLOTS];
		if (range->inode == 0) {
			range->inode = inode;
			range->low = range->high = range->known = 0;
		}
		if (range->inode == inode)
			return range;
	}
	errno = ENOMEM;
	die("too many files");
	return NULL;
}

static void mark(int fd, off_t low, off_t high)
{
	struct stat facts;
	if (!active || low >= high || fstat(fd, &facts) || !S_ISREG(facts.st_mode) || facts.st_dev != device)
		return;
	pthread_mutex_lock(&lock);
	struct range *range = range_of(facts.st_ino);
	if (range->low == range->high) {
		range->low = low;
		range->high = high;
	} else {
		if (low < range->low)
			range->low = low;
		if (high > range->high)
			range->high = high;
	}
	pthread_mutex_unlock(&lock);
}

static int below(const char *path)
{
	size_t length = strlen(directory);
	return !strncmp(path, directory, length) && (path[length] == 0 || path[length] == '/');
}

/* Path of an open file, if it is below the directory and still has its name. */
static int path_of(int fd, char *path)
{
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, PATH_MAX - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return below(path) && !strstr(path, " (deleted)");
}

static int real_open(const char *path, int flags, mode_t mode)
{
	NEXT(int, open, const char *, int, ...)
	return next_open(path, flags, mode);
}

static void file_path(char *path, ino_t inode)
{
	snprintf(path, PATH_MAX, "%s/files/%llu", shadow, (unsigned long long)inode);
}

static void dir_path(char *path, ino_t inode)
{
	snprintf(path, PATH_MAX, "%s/dirs/%llu", shadow, (unsigned long long)inode);
}

/* Copies what was written since the last sync. The caller holds the lock. */
static void keep_range(int fd, const struct stat *facts, off_t low, off_t high)
{
	NEXT(ssize_t, pwrite, int, const void *, size_t, off_t)
	NEXT(int, ftruncate, int, off_t)
	static char buffer[1 << 16];
	char path[PATH_MAX];
	file_path(path, facts->st_ino);
	int copy = real_open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (copy < 0 || next_ftruncate(copy, facts->st_size))
		die(path);
	/* The program may have opened the file for writing only. */
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	int source = real_open(link, O_RDONLY | O_CLOEXEC, 0);
	if (source < 0)
		die(link);
	if (high > facts->st_size)
		high = facts->st_size;
	while (low < high) {
		size_t wanted = high - low < (off_t)sizeof buffer ? (size_t)(high - low) : sizeof buffer;
		ssize_t count = pread(source, buffer, wanted, low);
		if (count <= 0)
			break;
		if (next_pwrite(copy, buffer, count, low) != count)
			die(path);
		low += count;
	}
	close(source);
	close(copy);
}

static void keep_entry(const char *from, const char *path, ino_t inode, int is_directory)
{
	char to[PATH_MAX], temporary[PATH_MAX];
	struct stat there;
	snprintf(temporary, sizeof temporary, "%s/entry.%d", shadow, (int)getpid());
	unlink(temporary);
	if (is_directory) {
		char target[64], old[64] = "";
		snprintf(target, sizeof target, "../%llu", (unsigned long long)inode);
		dir_path(to, inode);
		mkdir(to, 0700);
		if (readlink(path, old, sizeof old - 1) > 0 && !strcmp(old, target))
			return;
		if (symlink(target, temporary) || rename(temporary, path))
			die(path);
		return;
	}
	file_path(to, inode);
	close(real_open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	struct stat kept;
	if (!stat(to, &kept) && !lstat(path, &there) && kept.st_ino == there.st_ino)
		return;
	if (link(to, temporary) || rename(temporary, path))
		die(from);
}

/* Makes the shadow's entries those of the directory. The caller holds the lock. */
static void keep_directory(const char *real, ino_t inode)
{
	char kept[PATH_MAX], from[PATH_MAX * 2], to[PATH_MAX * 2];
	dir_path(kept, inode);
	mkdir(kept, 0700);
	struct dirent *entry;
	struct stat facts;
	DIR *names = opendir(real);
	while (names && (entry = readdir(names))) {
		snprintf(from, sizeof from, "%s/%s", real, entry->d_name);
		snprintf(to, sizeof to, "%s/%s", kept, entry->d_name);
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || lstat(from, &facts))
			continue;
		if (S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode))
			keep_entry(from, to, facts.st_ino, S_ISDIR(facts.st_mode));
	}
	if (names)
		closedir(names);
	names = opendir(kept);
	while (names && (entry = readdir(names))) {
		snprintf(from, sizeof from, "%s/%s", real, entry->d_name);
		snprintf(to, sizeof to, "%s/%s", kept, entry->d_name);
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && lstat(from, &facts))
			unlink(to);
	}
	if (names)
		closedir(names);
}

/* Everything that is there when the program starts is durable. */
static void keep_all(const char *path)
{
	struct stat facts;
	if (lstat(path, &facts))
		return;
	if (S_ISREG(facts.st_mode)) {
		int fd = real_open(path, O_RDONLY | O_CLOEXEC, 0);
		if (fd >= 0) {
			keep_range(fd, &facts, 0, facts.st_size);
			close(fd);
		}
	}
	if (!S_ISDIR(facts.st_mode))
		return;
	keep_directory(path, facts.st_ino);
	DIR *names = opendir(path);
	struct dirent *entry;
	while (names && (entry = readdir(names))) {
		char inner[PATH_MAX * 2];
		snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			keep_all(inner);
	}
	if (names)
		closedir(names);
}

__attribute__((constructor)) static void begin(void)
{
	const char *from = getenv("POWERCUT_DIR"), *to = getenv("POWERCUT_SHADOW");
	char path[PATH_MAX];
	struct stat facts;
	if (!from || !to)
		return;
	if (!realpath(from, directory) || stat(directory, &facts))
		die(from);
	device = facts.st_dev;
	snprintf(shadow, sizeof shadow, "%s", to);
	mkdir(shadow, 0700);
	snprintf(path, sizeof path, "%s/files", shadow);
	mkdir(path, 0700);
	snprintf(path, sizeof path, "%s/dirs", shadow);
	if (!mkdir(path, 0700))
		keep_all(directory);
	active = 1;
}

static int keep(int fd)
{
	struct stat facts;
	char path[PATH_MAX];
	if (fstat(fd, &facts))
		return -1;
	if (!path_of(fd, path))
		return 0;
	pthread_mutex_lock(&lock);
	if (S_ISDIR(facts.st_mode)) {
		keep_directory(path, facts.st_ino);
	} else if (S_ISREG(facts.st_mode)) {
		struct range *range = range_of(facts.st_ino);
		keep_range(fd, &facts, range->known ? range->low : 0, range->known ? range->high : facts.st_size);
		range->low = range->high = 0;
		range->known = 1;
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

/* After a failed sync the system may drop what it could not write, and the next sync succeeds. */
void powercut_forget(int fd)
{
	struct stat facts;
	if (!active || fstat(fd, &facts))
		return;
	pthread_mutex_lock(&lock);
	struct range *range = range_of(facts.st_ino);
	range->low = range->high = 0;
	range->known = 1;
	pthread_mutex_unlock(&lock);
}

/*
 * A new file or directory may have the inode number of one that was removed. The caller has held the
 * lock since before it was made, so that no other thread keeps anything of it meanwhile.
 */
static void is_new(const struct stat *facts)
{
	static unsigned long count;
	char path[PATH_MAX], away[PATH_MAX + 32];
	if (S_ISREG(facts->st_mode)) {
		struct range *range = range_of(facts->st_ino);
		range->low = range->high = 0;
		range->known = 1;
		file_path(path, facts->st_ino);
		unlink(path);
	} else {
		dir_path(path, facts->st_ino);
		snprintf(away, sizeof away, "%s.old%lu", path, count++);
		rename(path, away);
	}
}

static void opening(int flags)
{
	if (active && (flags & O_CREAT))
		pthread_mutex_lock(&lock);
}

static int opened(int fd, int flags, int existed)
{
	struct stat facts;
	char path[PATH_MAX];
	if (!active || !(flags & O_CREAT))
		return fd;
	if (fd >= 0 && !existed && path_of(fd, path) && !fstat(fd, &facts) && S_ISREG(facts.st_mode))
		is_new(&facts);
	pthread_mutex_unlock(&lock);
	return fd;
}

int fsync(int fd)
{
	NEXT(int, fsync, int)
	return active ? keep(fd) : next_fsync(fd);
}

int fdatasync(int fd)
{
	NEXT(int, fdatasync, int)
	return active ? keep(fd) : next_fdatasync(fd);
}

#define OPEN(name)                                                              \
	int name(const char *path, int flags, ...)                              \
	{                                                                       \
		NEXT(int, name, const char *, int, ...)                         \
		mode_t mode = 0;                                                \
		if (flags & (O_CREAT | O_TMPFILE)) {                            \
			va_list rest;                                           \
			va_start(rest, flags);                                  \
			mode = va_arg(rest, mode_t);                            \
			va_end(rest);                                           \
		}                                                               \
		struct stat old;                                                \
		opening(flags);                                                 \
		int existed = !stat(path, &old);                                \
		int fd = next_##name(path, flags, mode);                        \
		opened(fd, flags, existed);                                     \
		if (fd >= 0 && existed && (flags & O_TRUNC))                    \
			mark(fd, 0, old.st_size);                               \
		return fd;                                                      \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                            \
	int name(int at, const char *path, int flags, ...)                      \
	{                                                                       \
		NEXT(int, name, int, const char *, int, ...)                    \
		mode_t mode = 0;                                                \
		if (flags & (O_CREAT | O_TMPFILE)) {                            \
			va_list rest;                                           \
			va_start(rest, flags);                                  \
			mode = va_arg(rest, mode_t);                            \
			va_end(rest);                                           \
		}                                                               \
		opening(flags);                                                 \
		int existed = !faccessat(at, path, F_OK, 0);                    \
		return opened(next_##name(at, path, flags, mode), flags, existed); \
	}
OPENAT(openat)
OPENAT(openat64)

int mkdir(const char *path, mode_t mode)
{
	NEXT(int, mkdir, const char *, mode_t)
	struct stat facts;
	/* The library's own are made with the lock held. */
	if (!active || !strncmp(path, shadow, strlen(shadow)))
		return next_mkdir(path, mode);
	pthread_mutex_lock(&lock);
	int result = next_mkdir(path, mode);
	if (!result && !stat(path, &facts))
		is_new(&facts);
	pthread_mutex_unlock(&lock);
	return result;
}

/* Octets written at the current place of the file. */
static ssize_t appended(int fd, ssize_t count)
{
	if (active && count > 0) {
		off_t end = lseek(fd, 0, SEEK_CUR);
		if (end >= count)
			mark(fd, end - count, end);
	}
	return count;
}

static ssize_t placed(int fd, ssize_t count, off_t offset)
{
	if (active && count > 0)
		mark(fd, offset, offset + count);
	return count;
}

ssize_t write(int fd, const void *octets, size_t count)
{
	NEXT(ssize_t, write, int, const void *, size_t)
	return appended(fd, next_write(fd, octets, count));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	NEXT(ssize_t, writev, int, const struct iovec *, int)
	return appended(fd, next_writev(fd, parts, count));
}

ssize_t pwrite(int fd, const void *octets, size_t count, off_t offset)
{
	NEXT(ssize_t, pwrite, int, const void *, size_t, off_t)
	return placed(fd, next_pwrite(fd, octets, count, offset), offset);
}

ssize_t pwrite64(int fd, const void *octets, size_t count, off_t offset)
{
	NEXT(ssize_t, pwrite64, int, const void *, size_t, off_t)
	return placed(fd, next_pwrite64(fd, octets, count, offset), offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
	NEXT(ssize_t, pwritev, int, const struct iovec *, int, off_t)
	return placed(fd, next_pwritev(fd, parts, count, offset), offset);
}

#define FTRUNCATE(name)                                                         \
	int name(int fd, off_t length)                                          \
	{                                                                       \
		NEXT(int, name, int, off_t)                                     \
		struct stat old;                                                \
		int known = active && !fstat(fd, &old);                         \
		int result = next_##name(fd, length);                           \
		if (known && !result && old.st_size < length)                   \
			mark(fd, old.st_size, length);                          \
		else if (known && !result)                                      \
			mark(fd, length, old.st_size);                          \
		return result;                                                  \
	}
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)
