/*
 * A disk that fails on request: a library to be preloaded into the program under test.
 *
 * Calls on files below $FAULTS_DIR fail as the file $FAULTS_CONTROL says; it is read again, and
 * counting begins anew, whenever it was replaced. Lines of it:
 *
 *   write K ERROR [TIMES]      the K-th write writes half of its octets, the next one fails
 *   sync K ERROR [TIMES]       fsync or fdatasync
 *   dirsync K ERROR [TIMES]    those of directories alone
 *   open K ERROR [TIMES]       making a file
 *   truncate K ERROR [TIMES]
 *   rename K ERROR [TIMES]
 *   mkdir K ERROR [TIMES]
 *   space OCTETS            so many octets can be written, then ENOSPC
 *
 * All kinds of one call are counted together. TIMES: how many calls fail, 1 if missing; 0: all from
 * then on. ERROR: EIO, ENOSPC, EDQUOT. After a failed sync what was not written is lost, although the file
 * shows it: together with powercut.so (preloaded behind this one) it is not there after the cut.
 */
#define _GNU_SOURCE
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

#define NEXT(result, name, ...)                                        \
	static result (*next_##name)(__VA_ARGS__);                     \
	if (!next_##name) {                                            \
		*(void **)&next_##name = dlsym(RTLD_NEXT, #name);      \
	}

enum operation { WRITE, SYNC, DIRSYNC, OPEN, TRUNCATE, RENAME, MKDIR, OPERATIONS };
static const char *const names[OPERATIONS] = { "write", "sync", "dirsync", "open", "truncate", "rename", "mkdir" };

struct fault {
	long nth, times, seen;
	int error;
};

static char directory[PATH_MAX];
static const char *control;
static struct stat control_seen;
static struct fault faults[OPERATIONS];
static long space = -1;
static int half_written;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

extern void powercut_forget(int fd) __attribute__((weak));

__attribute__((constructor)) static void begin(void)
{
	const char *from = getenv("FAULTS_DIR");
	control = getenv("FAULTS_CONTROL");
	if (!from || !control || !realpath(from, directory))
		control = NULL;
}

static int error_of(const char *name)
{
	return !strcmp(name, "ENOSPC") ? ENOSPC : !strcmp(name, "EDQUOT") ? EDQUOT : EIO;
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
	memset(faults, 0, sizeof faults);
	space = -1;
	half_written = 0;
	char line[128], name[32], error[32];
	FILE *file = fopen(control, "re");
	while (file && fgets(line, sizeof line, file)) {
		long nth, times = 1;
		if (sscanf(line, "space %ld", &space) == 1)
			continue;
		if (sscanf(line, "%31s %ld %31s %ld", name, &nth, error, &times) < 3)
			continue;
		for (int n = 0; n < OPERATIONS; n++)
			if (!strcmp(name, names[n]))
				faults[n] = (struct fault){ nth, times, 0, error_of(error) };
	}
	if (file)
		fclose(file);
}

static int below(const char *path)
{
	size_t length = strlen(directory);
	return !strncmp(path, directory, length) && (path[length] == 0 || path[length] == '/');
}

static int ours(int fd)
{
	char link[64], path[PATH_MAX];
	struct stat facts;
	if (!control || fstat(fd, &facts) || !(S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)))
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return below(path);
}

/* Whether this call fails: its error, or 0. */
static int fails(enum operation operation)
{
	pthread_mutex_lock(&lock);
	read_control();
	struct fault *fault = &faults[operation];
	int error = 0;
	if (fault->error) {
		fault->seen++;
		if (fault->seen >= fault->nth && (!fault->times || fault->seen < fault->nth + fault->times))
			error = fault->error;
	}
	pthread_mutex_unlock(&lock);
	return error;
}

/* How many of the octets are written before a failure; -1 with errno: none. */
static ssize_t allowed(int fd, size_t count)
{
	if (!ours(fd))
		return (ssize_t)count;
	pthread_mutex_lock(&lock);
	read_control();
	ssize_t result = (ssize_t)count;
	int pending = half_written;
	half_written = 0;
	pthread_mutex_unlock(&lock);
	int error = pending ? pending : fails(WRITE);
	pthread_mutex_lock(&lock);
	if (error && !pending && count > 1) {
		half_written = error;
		result = (ssize_t)(count / 2);
	} else if (error) {
		errno = error;
		result = -1;
	} else if (space >= 0) {
		if (space == 0 && count > 0) {
			errno = ENOSPC;
			result = -1;
		} else if ((long)count > space) {
			result = space;
		}
		if (result > 0)
			space -= result;
	}
	pthread_mutex_unlock(&lock);
	return result;
}

ssize_t write(int fd, const void *octets, size_t count)
{
	NEXT(ssize_t, write, int, const void *, size_t)
	ssize_t most = allowed(fd, count);
	return most < 0 ? -1 : next_write(fd, octets, (size_t)most);
}

ssize_t pwrite(int fd, const void *octets, size_t count, off_t offset)
{
	NEXT(ssize_t, pwrite, int, const void *, size_t, off_t)
	ssize_t most = allowed(fd, count);
	return most < 0 ? -1 : next_pwrite(fd, octets, (size_t)most, offset);
}

ssize_t pwrite64(int fd, const void *octets, size_t count, off_t offset)
{
	NEXT(ssize_t, pwrite64, int, const void *, size_t, off_t)
	ssize_t most = allowed(fd, count);
	return most < 0 ? -1 : next_pwrite64(fd, octets, (size_t)most, offset);
}

/* Several parts: written one by one as far as they are allowed. */
ssize_t writev(int fd, const struct iovec *parts, int count)
{
	NEXT(ssize_t, writev, int, const struct iovec *, int)
	if (!ours(fd))
		return next_writev(fd, parts, count);
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

static int sync_fails(int fd)
{
	struct stat facts;
	int error = ours(fd) ? fails(SYNC) : 0;
	if (!error && ours(fd) && !fstat(fd, &facts) && S_ISDIR(facts.st_mode))
		error = fails(DIRSYNC);
	if (error && powercut_forget)
		powercut_forget(fd);
	errno = error ? error : errno;
	return error;
}

int fsync(int fd)
{
	NEXT(int, fsync, int)
	return sync_fails(fd) ? -1 : next_fsync(fd);
}

int fdatasync(int fd)
{
	NEXT(int, fdatasync, int)
	return sync_fails(fd) ? -1 : next_fdatasync(fd);
}

#define FTRUNCATE(name)                                        \
	int name(int fd, off_t length)                         \
	{                                                      \
		NEXT(int, name, int, off_t)                    \
		int error = ours(fd) ? fails(TRUNCATE) : 0;    \
		if (error) {                                   \
			errno = error;                         \
			return -1;                             \
		}                                              \
		return next_##name(fd, length);                \
	}
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

static int path_fails(const char *path, enum operation operation)
{
	int error = control && below(path) ? fails(operation) : 0;
	errno = error ? error : errno;
	return error;
}

int rename(const char *from, const char *to)
{
	NEXT(int, rename, const char *, const char *)
	return path_fails(to, RENAME) ? -1 : next_rename(from, to);
}

int mkdir(const char *path, mode_t mode)
{
	NEXT(int, mkdir, const char *, mode_t)
	return path_fails(path, MKDIR) ? -1 : next_mkdir(path, mode);
}

#define OPEN_FUNCTION(name)                                             \
	int name(const char *path, int flags, ...)                      \
	{                                                               \
		NEXT(int, name, const char *, int, ...)                 \
		mode_t mode = 0;                                        \
		if (flags & (O_CREAT | O_TMPFILE)) {                    \
			va_list rest;                                   \
			va_start(rest, flags);                          \
			mode = va_arg(rest, mode_t);                    \
			va_end(rest);                                   \
		}                                                       \
		if ((flags & O_CREAT) && path_fails(path, OPEN))        \
			return -1;                                      \
		return next_##name(path, flags, mode);                  \
	}
OPEN_FUNCTION(open)
OPEN_FUNCTION(open64)
