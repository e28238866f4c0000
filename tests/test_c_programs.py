"""Programs in C, static, as a compiler and a C library make them: they run as they are.

Each is compiled with `gcc -static`, run natively and under cr3: same output, same exit code.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import MakeKernel

from emu.elf import load_elf

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc and a static C library"),
]

HELLO = r"""
#include <stdio.h>
int main(int argc, char **argv) { printf("hello, %d arguments, %.3f\n", argc, argc * 1.5); return 3; }"""

MALLOC = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
    unsigned long sum = 0;
    char *block[200];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 200; i++) { block[i] = malloc(100 + 997 * i); memset(block[i], i + round, 100 + 997 * i); }
        for (int i = 0; i < 200; i += 2) { block[i] = realloc(block[i], 2000 * (i + 1)); }
        for (int i = 0; i < 200; i++) { sum = sum * 31 + (unsigned char)block[i][99]; free(block[i]); }
    }
    printf("%lu\n", sum);
    return 0;
}"""

THREADS = r"""
#include <pthread.h>
#include <stdio.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long count;
static void *work(void *argument) {
    for (int i = 0; i < 1000; i++) { pthread_mutex_lock(&lock); count++; pthread_mutex_unlock(&lock); }
    return argument;
}
int main(void) {
    pthread_t thread[4];
    long sum = 0;
    for (long i = 0; i < 4; i++) pthread_create(&thread[i], 0, work, (void *)i);
    for (int i = 0; i < 4; i++) { void *result; pthread_join(thread[i], &result); sum += (long)result; }
    printf("%ld %ld\n", count, sum);
    return 0;
}"""

PROCESSES = r"""
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static sigjmp_buf before;
static void back(int number) { siglongjmp(before, number); }
int main(int argc, char **argv) {
    int ends[2], status;
    char text[64];
    if (argc > 1) { printf("another program says %s\n", argv[1]); return 5; }
    if (pipe(ends)) return 1;
    pid_t child = fork();
    if (!child) { dprintf(ends[1], "through a pipe"); _exit(3); }
    close(ends[1]);
    int size = read(ends[0], text, 63);
    text[size] = 0;
    waitpid(child, &status, 0);
    printf("%s, %d\n", text, WEXITSTATUS(status));
    fflush(stdout);
    if (!(child = fork())) { execl("/proc/self/exe", "x", "hello", (char *)0); _exit(9); }
    waitpid(child, &status, 0);
    printf("exec %d\n", WEXITSTATUS(status));
    signal(SIGSEGV, back);
    int number = sigsetjmp(before, 1);
    if (!number) *(volatile char *)16 = 1;
    printf("signal %d\n", number);
    int file = memfd_create("file", 0);
    if (ftruncate(file, 8192)) return 2;
    char *mapped = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    strcpy(mapped + 4096, "mapped");
    memset(text, 0, 64);
    pread(file, text, 6, 4096);
    printf("%s\n", text);
    return 0;
}"""

PROGRAMS = {"hello": HELLO, "malloc": MALLOC, "threads": THREADS, "processes": PROCESSES}


@pytest.fixture(scope="module", params=PROGRAMS)
def executable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c")
    source = folder / f"{request.param}.c"
    source.write_text("#define _GNU_SOURCE\n" + PROGRAMS[request.param])
    command = ["gcc", "-static", "-O1", "-w", "-pthread", "-o", folder / request.param, source]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"gcc -static does not work here: {done.stderr.splitlines()[-1]}")
    return folder / request.param


@pytest.mark.parametrize("pti", [False, True])
def test_it_does_what_it_does_natively(pti: bool, executable: Path, make_kernel: MakeKernel) -> None:
    natively = subprocess.run([executable], stdout=subprocess.PIPE, timeout=10)
    stdout = io.BytesIO()
    kernel = make_kernel(stdout=stdout, pti=pti)
    kernel.spawn(load_elf(executable))
    result = kernel.run()
    assert (stdout.getvalue(), result.exit_code) == (natively.stdout, natively.returncode)
