/*
 * A disk that fails, kills and loses power: a library to be preloaded into the program under test.
 *
 * Faults. Calls on files below $DISK_DIR fail as the file $DISK_CONTROL says; it is read again, and
 * counting begins anew, whenever it was replaced. Lines of it:
 *
 *   OPERATION K ERROR [TIMES [PATH]]   the K-th call fails
 *   space OCTETS                       so many octets can be written, then ENOSPC
 *
 * OPERATION: write (half of the octets are written, the next write to the file fails), sync (fsync or
 * fdatasync), dirsync (those of directories alone), open (making a file), truncate, rename (or a hard
 * link), mkdir (of one that is not there), unlink (or removing a directory), read; call: any of these but read, counted together.
 * TIMES: how many calls fail, 1 if missing; 0: all from then on. PATH: only calls whose path below the
 * directory has this in it. ERROR: EIO, ENOSPC, EDQUOT; KILL: the program is killed there. Each failed
 * call adds an octet to $DISK_CONTROL.met. After a failed sync what was not written is lost, although
 * the file shows it.
 *
 * Power cuts, if $DISK_SHADOW is set. Every sync below $DISK_DIR copies what it makes durable to
 * $DISK_SHADOW. After SIGKILL the shadow is the disk as a power cut leaves it in the worst case that is
 * allowed: nothing that was not synced is there, neither content nor names.
 *
 *   files/INODE       content of a file at its last fsync or fdatasync
 *   dirs/INODE/NAME   entries of a directory at its last fsync: a file is a hard link to
 *                     files/INODE, a directory a symbolic link to ../INODE
 *
 * A sync does not make the file's own name durable (ext4 mostly does; the standard promises
 * nothing), sync_file_range makes nothing durable. Writes through mmap are not seen.
 *
 * The real syncs are never made: the page cache survives a kill, and the shadow stands for the disk.
 * All calls are made as system calls, so that none of the library's own comes back to it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char directory[PATH_MAX], shadow[PATH_MAX / 2];
static const char *control;
static dev_t device;
static int power;

static void die(const char *what)
{
	fprintf(stderr, "disk: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static int below(const char *path)
{
	size_t length = strlen(directory);
	return !strncmp(path, directory, length) && (path[length] == 0 || path[length] == '/');
}

/* The path of an open file or directory, if it is or was below the directory. */
static int path_of(int fd, char *path)
{
	char link[64];
	struct stat facts;
	if (!control || fstat(fd, &facts) || !(S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)))
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, PATH_MAX - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return below(path);
}

static int open_file(const char *path, int flags)
{
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

static void make_directory(const char *path)
{
	syscall(SYS_mkdirat, AT_FDCWD, path, 0700);
}

static void remove_name(const char *path)
{
	syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

static int move_name(const char *from, const char *to)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* ---- Faults ---- */

enum operation { WRITE, SYNC, DIRSYNC, OPEN, TRUNCATE, RENAME, MKDIR, UNLINK, READ, CALL, OPERATIONS };
static const char *const names[OPERATIONS] = { "write",	 "sync",  "dirsync", "open", "truncate",
					       "rename", "mkdir", "unlink",  "read", "call" };
#define KILL (-1)

struct fault {
	enum operation operation;
	int error;
	long nth, times, seen;
	char part[64];
};

static struct stat control_seen;
static struct fault faults[16];
static int fault_count;
static long space = -1;
/* The error of the next write to this file, the last one having written half. */
static int half_error, half_fd;
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;

static int error_of(const char *name)
{
	return !strcmp(name, "KILL") ? KILL : !strcmp(name, "ENOSPC") ? ENOSPC : !strcmp(name, "EDQUOT") ? EDQUOT : EIO;
}

/* Reads the control file if it was replaced. The caller holds the lock. */
static void read_control(void)
{
	struct stat facts;
	if (stat(control, &facts))
		memset(&facts, 0, sizeof facts);
	if (facts.st_ino == control_seen.st_ino && facts.st_mtim.tv_sec == control_seen.st_mtim.tv_sec &&
	    facts.st_mtim.tv_nsec == control_seen.st_mtim.tv_nsec)
		return;
	control_seen = facts;
	fault_count = half_error = 0;
	space = -1;
	char text[2048] = "", name[32], error[32];
	int file = open_file(control, O_RDONLY);
	if (file >= 0) {
		if (syscall(SYS_read, file, text, sizeof text - 1) < 0)
			text[0] = 0;
		close(file);
	}
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n"));) {
		struct fault fault = { .times = 1 };
		if (sscanf(line, "space %ld", &space) == 1 ||
		    sscanf(line, "%31s %ld %31s %ld %63s", name, &fault.nth, error, &fault.times, fault.part) < 3)
			continue;
		fault.error = error_of(error);
		while (fault.operation < OPERATIONS && strcmp(name, names[fault.operation]))
			fault.operation++;
		if (fault.operation == OPERATIONS || fault_count == 16)
			die(line);
		faults[fault_count++] = fault;
	}
}

static void met(void)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s.met", control);
	int file = open_file(path, O_WRONLY | O_CREAT | O_APPEND);
	if (file < 0 || syscall(SYS_write, file, ".", 1) != 1)
		die(path);
	close(file);
}

static void end_here(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* What happens to this call: its error, KILL, or 0. The caller holds the lock. */
static int fate(enum operation operation, const char *path)
{
	int error = 0;
	read_control();
	for (int n = 0; n < fault_count; n++) {
		struct fault *fault = &faults[n];
		int same = fault->operation == operation || (fault->operation == SYNC && operation == DIRSYNC) ||
			   (fault->operation == CALL && operation != READ);
		if (!same || !strstr(path + strlen(directory), fault->part))
			continue;
		fault->seen++;
		if (fault->seen >= fault->nth && (!fault->times || fault->seen < fault->nth + fault->times))
			error = fault->error;
	}
	if (error)
		met();
	return error;
}

/* Whether a call fails; errno is set. */
static int fails(enum operation operation, const char *path)
{
	if (!control || !below(path))
		return 0;
	pthread_mutex_lock(&fault_lock);
	int error = fate(operation, path);
	pthread_mutex_unlock(&fault_lock);
	if (error == KILL)
		end_here();
	if (error)
		errno = error;
	return error;
}

static int fails_at(enum operation operation, int fd)
{
	char path[PATH_MAX];
	return path_of(fd, path) && fails(operation, path);
}

/* How many of the octets are written before a failure; -1 with errno: none. */
static ssize_t allowed(int fd, size_t count, int *error)
{
	char path[PATH_MAX];
	*error = 0;
	if (count == 0 || !path_of(fd, path))
		return (ssize_t)count;
	ssize_t result = (ssize_t)count;
	pthread_mutex_lock(&fault_lock);
	int pending = half_fd == fd ? half_error : 0;
	*error = pending ? pending : fate(WRITE, path);
	if (pending) {
		half_error = 0;
		result = -1;
	} else if (*error) {
		result = count > 1 ? (ssize_t)(count / 2) : -1;
		half_fd = fd;
		half_error = count > 1 && *error != KILL ? *error : 0;
	} else if (space >= 0 && space < (long)count) {
		result = space ? space : -1;
		*error = ENOSPC;
		if (!space)
			met();
		space = 0;
	} else if (space >= 0) {
		space -= (long)count;
	}
	pthread_mutex_unlock(&fault_lock);
	if (result < 0 && *error != KILL)
		errno = *error;
	return result;
}

/* ---- What a power cut leaves ---- */

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

static struct range ranges[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

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

/* All writes before are durable, or will never be. The caller holds the lock. */
static void settled(ino_t inode)
{
	struct range *range = range_of(inode);
	range->low = range->high = 0;
	range->known = 1;
}

static void mark(int fd, off_t low, off_t high)
{
	struct stat facts;
	if (!power || low >= high || fstat(fd, &facts) || !S_ISREG(facts.st_mode) || facts.st_dev != device)
		return;
	pthread_mutex_lock(&lock);
	struct range *range = range_of(facts.st_ino);
	int none = range->low == range->high;
	range->low = none || low < range->low ? low : range->low;
	range->high = none || high > range->high ? high : range->high;
	pthread_mutex_unlock(&lock);
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
	static char buffer[1 << 16];
	char path[PATH_MAX];
	file_path(path, facts->st_ino);
	int copy = open_file(path, O_WRONLY | O_CREAT);
	if (copy < 0 || syscall(SYS_ftruncate, copy, facts->st_size))
		die(path);
	/* The program may have opened the file for writing only. */
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	int source = open_file(link, O_RDONLY);
	if (source < 0)
		die(link);
	if (high > facts->st_size)
		high = facts->st_size;
	while (low < high) {
		size_t wanted = high - low < (off_t)sizeof buffer ? (size_t)(high - low) : sizeof buffer;
		ssize_t count = syscall(SYS_pread64, source, buffer, wanted, low);
		if (count <= 0)
			break;
		if (syscall(SYS_pwrite64, copy, buffer, count, low) != count)
			die(path);
		low += count;
	}
	close(source);
	close(copy);
}

static void keep_entry(const char *from, const char *path, ino_t inode, int is_directory)
{
	char to[PATH_MAX], temporary[PATH_MAX];
	struct stat there, kept;
	snprintf(temporary, sizeof temporary, "%s/entry.%d", shadow, (int)getpid());
	remove_name(temporary);
	if (is_directory) {
		char target[64], old[64] = "";
		snprintf(target, sizeof target, "../%llu", (unsigned long long)inode);
		dir_path(to, inode);
		make_directory(to);
		if (readlink(path, old, sizeof old - 1) > 0 && !strcmp(old, target))
			return;
		if (symlink(target, temporary) || move_name(temporary, path))
			die(path);
		return;
	}
	file_path(to, inode);
	close(open_file(to, O_WRONLY | O_CREAT));
	if (!stat(to, &kept) && !lstat(path, &there) && kept.st_ino == there.st_ino)
		return;
	if (syscall(SYS_linkat, AT_FDCWD, to, AT_FDCWD, temporary, 0) || move_name(temporary, path))
		die(from);
}

/* Makes the shadow's entries those of the directory. The caller holds the lock. */
static void keep_directory(const char *real, ino_t inode)
{
	char kept[PATH_MAX], from[PATH_MAX * 2], to[PATH_MAX * 2];
	dir_path(kept, inode);
	make_directory(kept);
	struct dirent *entry;
	struct stat facts;
	DIR *entries = opendir(real);
	while (entries && (entry = readdir(entries))) {
		snprintf(from, sizeof from, "%s/%s", real, entry->d_name);
		snprintf(to, sizeof to, "%s/%s", kept, entry->d_name);
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || lstat(from, &facts))
			continue;
		if (S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode))
			keep_entry(from, to, facts.st_ino, S_ISDIR(facts.st_mode));
	}
	if (entries)
		closedir(entries);
	entries = opendir(kept);
	while (entries && (entry = readdir(entries))) {
		snprintf(from, sizeof from, "%s/%s", real, entry->d_name);
		snprintf(to, sizeof to, "%s/%s", kept, entry->d_name);
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && lstat(from, &facts))
			remove_name(to);
	}
	if (entries)
		closedir(entries);
}

/* Everything that is there when the program starts is durable. */
static void keep_all(const char *path)
{
	struct stat facts;
	if (lstat(path, &facts))
		return;
	if (S_ISREG(facts.st_mode)) {
		int fd = open_file(path, O_RDONLY);
		if (fd >= 0) {
			keep_range(fd, &facts, 0, facts.st_size);
			close(fd);
		}
	}
	if (!S_ISDIR(facts.st_mode))
		return;
	keep_directory(path, facts.st_ino);
	DIR *entries = opendir(path);
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		char inner[PATH_MAX * 2];
		snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			keep_all(inner);
	}
	if (entries)
		closedir(entries);
}

/* A sync that is a success. */
static void keep(int fd, const char *path, const struct stat *facts)
{
	if (!power || strstr(path, " (deleted)"))
		return;
	pthread_mutex_lock(&lock);
	if (S_ISDIR(facts->st_mode)) {
		keep_directory(path, facts->st_ino);
	} else {
		struct range *range = range_of(facts->st_ino);
		keep_range(fd, facts, range->known ? range->low : 0, range->known ? range->high : facts->st_size);
		settled(facts->st_ino);
	}
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
	if (facts->st_dev != device) {
		return;
	} else if (S_ISREG(facts->st_mode)) {
		settled(facts->st_ino);
		file_path(path, facts->st_ino);
		remove_name(path);
	} else {
		dir_path(path, facts->st_ino);
		snprintf(away, sizeof away, "%s.old%lu", path, count++);
		move_name(path, away);
	}
}

__attribute__((constructor)) static void begin(void)
{
	const char *from = getenv("DISK_DIR"), *to = getenv("DISK_SHADOW");
	char path[PATH_MAX];
	struct stat facts;
	if (!from || !getenv("DISK_CONTROL"))
		return;
	if (!realpath(from, directory) || stat(directory, &facts))
		die(from);
	control = getenv("DISK_CONTROL");
	if (!to)
		return;
	device = facts.st_dev;
	snprintf(shadow, sizeof shadow, "%s", to);
	make_directory(shadow);
	snprintf(path, sizeof path, "%s/files", shadow);
	make_directory(path);
	snprintf(path, sizeof path, "%s/dirs", shadow);
	if (!syscall(SYS_mkdirat, AT_FDCWD, path, 0700))
		keep_all(directory);
	power = 1;
}

/* ---- The calls ---- */

static int sync_file(int fd)
{
	char path[PATH_MAX];
	struct stat facts;
	if (fstat(fd, &facts))
		return -1;
	if (!path_of(fd, path))
		return 0;
	if (!fails(S_ISDIR(facts.st_mode) ? DIRSYNC : SYNC, path)) {
		keep(fd, path, &facts);
		return 0;
	}
	/* The system may drop what it could not write, and the next sync succeeds. */
	int error = errno;
	if (power) {
		pthread_mutex_lock(&lock);
		settled(facts.st_ino);
		pthread_mutex_unlock(&lock);
	}
	errno = error;
	return -1;
}

int fsync(int fd)
{
	return sync_file(fd);
}

int fdatasync(int fd)
{
	return sync_file(fd);
}

/* A write at `offset`, or where the file stands if that is negative. */
static ssize_t put(int fd, const void *octets, size_t count, off_t offset)
{
	int error;
	ssize_t most = allowed(fd, count, &error), written = -1;
	if (most >= 0 && offset < 0) {
		written = syscall(SYS_write, fd, octets, (size_t)most);
		off_t end = power && written > 0 ? lseek(fd, 0, SEEK_CUR) : 0;
		if (end >= written)
			mark(fd, end - written, end);
	} else if (most >= 0) {
		written = syscall(SYS_pwrite64, fd, octets, (size_t)most, offset);
		mark(fd, offset, offset + written);
	}
	if (error == KILL)
		end_here();
	return written;
}

ssize_t write(int fd, const void *octets, size_t count)
{
	return put(fd, octets, count, -1);
}

ssize_t pwrite(int fd, const void *octets, size_t count, off_t offset)
{
	return put(fd, octets, count, offset);
}

ssize_t pwrite64(int fd, const void *octets, size_t count, off_t offset)
{
	return put(fd, octets, count, offset);
}

/* Several parts: of our files, written one by one as far as they are allowed. */
ssize_t writev(int fd, const struct iovec *parts, int count)
{
	char path[PATH_MAX];
	if (!path_of(fd, path))
		return syscall(SYS_writev, fd, parts, count);
	ssize_t written = 0;
	for (int n = 0; n < count; n++) {
		ssize_t part = write(fd, parts[n].iov_base, parts[n].iov_len);
		if (part < 0)
			return written ? written : -1;
		written += part;
		if ((size_t)part < parts[n].iov_len)
			break;
	}
	return written;
}

ssize_t read(int fd, void *octets, size_t count)
{
	return fails_at(READ, fd) ? -1 : syscall(SYS_read, fd, octets, count);
}

ssize_t pread(int fd, void *octets, size_t count, off_t offset)
{
	return fails_at(READ, fd) ? -1 : syscall(SYS_pread64, fd, octets, count, offset);
}

ssize_t pread64(int fd, void *octets, size_t count, off_t offset)
{
	return pread(fd, octets, count, offset);
}

int ftruncate(int fd, off_t length)
{
	struct stat old;
	if (fails_at(TRUNCATE, fd))
		return -1;
	int known = power && !fstat(fd, &old), result = (int)syscall(SYS_ftruncate, fd, length);
	if (known && !result && old.st_size < length)
		mark(fd, old.st_size, length);
	else if (known && !result)
		mark(fd, length, old.st_size);
	return result;
}

int ftruncate64(int fd, off_t length)
{
	return ftruncate(fd, length);
}

static int open_at(int at, const char *path, int flags, mode_t mode)
{
	struct stat old;
	if (!control || !(flags & O_CREAT))
		return (int)syscall(SYS_openat, at, path, flags, mode);
	if (fstatat(at, path, &old, 0) && fails(OPEN, path))
		return -1;
	if (power)
		pthread_mutex_lock(&lock);
	int existed = !fstatat(at, path, &old, 0);
	int fd = (int)syscall(SYS_openat, at, path, flags, mode);
	if (power && fd >= 0 && !existed && !fstat(fd, &old) && S_ISREG(old.st_mode))
		is_new(&old);
	if (power)
		pthread_mutex_unlock(&lock);
	if (fd >= 0 && existed && (flags & O_TRUNC))
		mark(fd, 0, old.st_size);
	return fd;
}

#define MODE(flags, mode)                          \
	mode_t mode = 0;                           \
	if (flags & (O_CREAT | O_TMPFILE)) {       \
		va_list rest;                      \
		va_start(rest, flags);             \
		mode = va_arg(rest, mode_t);       \
		va_end(rest);                      \
	}

int open(const char *path, int flags, ...)
{
	MODE(flags, mode)
	return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	MODE(flags, mode)
	return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
	MODE(flags, mode)
	return open_at(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
	MODE(flags, mode)
	return open_at(at, path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
	struct stat facts;
	/* What exists is told to exist, full disk or not. */
	if (lstat(path, &facts) && fails(MKDIR, path))
		return -1;
	if (!power)
		return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
	pthread_mutex_lock(&lock);
	int result = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
	if (!result && !stat(path, &facts))
		is_new(&facts);
	pthread_mutex_unlock(&lock);
	return result;
}

int rename(const char *from, const char *to)
{
	return fails(RENAME, to) ? -1 : move_name(from, to);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
	return fails(RENAME, to) ? -1 : (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
}

int unlink(const char *path)
{
	return fails(UNLINK, path) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags)
{
	return (at == AT_FDCWD ? fails(UNLINK, path) : fails_at(UNLINK, at)) ?
		       -1 :
		       (int)syscall(SYS_unlinkat, at, path, flags);
}

int rmdir(const char *path)
{
	return fails(UNLINK, path) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}
