/* What all preloads share: they go along when a node starts another Python (its pre-loaded process gets an environment of its own), and no further.
   Commands of jobs are not touched. Everything is done by system calls, so that no order of loading matters. */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static int is_ours(const char *variable) { return strncmp(variable, "LD_PRELOAD=", 11) == 0 || strncmp(variable, "HARNESS_", 8) == 0; }

/* How many variables there may be: what was given, and what goes along. */
static size_t most(char *const envp[]) {
    size_t count = 1;
    for (size_t i = 0; envp && envp[i]; i++) count++;
    for (size_t i = 0; environ && environ[i]; i++) count++;
    return count;
}

static char **with_ours(const char *path, char *const envp[], char **all) {
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    size_t count = 0;
    for (size_t i = 0; envp && envp[i]; i++)
        if (!is_ours(envp[i])) all[count++] = envp[i];
    if (strncmp(name, "python", 6) == 0)
        for (size_t i = 0; environ && environ[i]; i++)
            if (is_ours(environ[i])) all[count++] = environ[i];
    all[count] = NULL;
    return all;
}

/* The room is on the stack: this may be a child of vfork, which shares its parent's memory. */
__attribute__((visibility("default"))) int execve(const char *path, char *const argv[], char *const envp[]) {
    char **all = alloca(most(envp) * sizeof *all);
    return (int)syscall(SYS_execve, path, argv, with_ours(path, envp, all));
}

/* From Python 3.13 on subprocess uses these, and glibc's own call of execve inside them is not seen. */
typedef int spawn(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[], char *const[]);

#define SPAWN_LIKE(name)                                                                                                            \
    __attribute__((visibility("default"))) int name(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,        \
                                                    const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {  \
        spawn *next_one = (spawn *)dlsym(RTLD_NEXT, #name);                                                                         \
        char **all = alloca(most(envp) * sizeof *all);                                                                              \
        return next_one(pid, path, actions, attributes, argv, with_ours(path, envp, all));                                          \
    }
SPAWN_LIKE(posix_spawn)
SPAWN_LIKE(posix_spawnp)
