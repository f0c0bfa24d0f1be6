/* What both preloads share: they go along when a node starts another Python (its pre-loaded process gets an environment of its own), and no further.
   Commands of jobs are not touched. Everything is done by system calls, so that no order of loading matters. */
#define _GNU_SOURCE
#include <alloca.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static int is_ours(const char *variable) { return strncmp(variable, "LD_PRELOAD=", 11) == 0 || strncmp(variable, "HARNESS_", 8) == 0; }

__attribute__((visibility("default"))) int execve(const char *path, char *const argv[], char *const envp[]) {
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    size_t given = 0, own = 0, count = 0;
    while (envp && envp[given]) given++;
    while (environ && environ[own]) own++;
    char **all = alloca((given + own + 1) * sizeof *all); /* on the stack: this may be a child of vfork, which shares its parent's memory */
    for (size_t i = 0; i < given; i++)
        if (!is_ours(envp[i])) all[count++] = envp[i];
    if (strncmp(name, "python", 6) == 0)
        for (size_t i = 0; i < own; i++)
            if (is_ours(environ[i])) all[count++] = environ[i];
    all[count] = NULL;
    return (int)syscall(SYS_execve, path, argv, all);
}
