"""Calls on files, corner by corner: each case is a program for cr3 and for the real kernel (see `file_programs`).

Numbers of descriptors follow from the calls before: the lowest free one is 3 in the beginning.
"""

from __future__ import annotations

__all__ = ["CASES", "ROOT_ONLY"]

_LINKS = "; ".join(f'symlink("{"t" if number == 0 else f"l{number - 1}"}", "l{number}")' for number in range(42))

CASES = {
    "open: what cannot be opened": """
        open("f", NEW | O_EXCL, 0o644); open("f", NEW | O_EXCL, 0o644); open("none", 0); open("f/g", 0)
        open("none/g", NEW, 0o644); open("", 0); open("", NEW, 0o644); open("f/", 0); open("n/", NEW, 0o644)
        open("f/", NEW, 0o644); open(".", NEW, 0o644); open(".", O_RDWR); open(".", O_WRONLY); open(".", 0)
        open("..", O_CREAT, 0o644); open("/", NEW); open("f", O_DIRECTORY); open(".", O_DIRECTORY)
        open(".", O_DIRECTORY | O_CREAT); open(".", O_TMPFILE); open(".", O_TMPFILE | 2, 0o600)
        open("f", O_TMPFILE | 2, 0o600); open("x" * 256, 0); open("x" * 255, 0); open("x" * 255, NEW, 0o600)
        open("x" * 256, NEW, 0o600); open("a/"*2047+"b", 0); open("a/"*2048, 0); open("./"*2047+"f", 0)
        open(0x1000, 0); open(0, 0); open(-1, 0); open("f", 3); read(15, BUFFER, 1); write(15, "a", 1)
        openat(3, "x", 0); openat(99, "x", 0); openat(99, "/", 0); openat(6, "f", 0); openat(-1, "f", 0)
        open("f", 0x80000000)""",
    "open: O_NOFOLLOW and O_PATH": """
        symlink("f", "l"); open("l", 0); open("l", O_NOFOLLOW); open("l", NEW | O_EXCL, 0o600)
        open("l", NEW | O_NOFOLLOW, 0o600); open("l", NEW, 0o644); write(3, "hello", 5); open("f", 0)
        read(4, BUFFER, 5); dump(5); open("l", O_NOFOLLOW); open("l", O_PATH | O_NOFOLLOW); fcntl(5, 3, 0)
        read(5, BUFFER, 1); write(5, BUFFER, 1); lseek(5, 0, 0); fstat(5, BUFFER); dump_at(24, 4)
        readlinkat(5, "", BUFFER, 100); dump(2); readlinkat(4, "", BUFFER, 100); fcntl(5, 1, 0); fcntl(5, 4, 0)
        fcntl(5, 1032, 0); dup(5); ftruncate(5, 0); fsync(5); ioctl(5, 0x5401, BUFFER); fchmod(5, 0o600)
        getdents64(5, BUFFER, 100); open("f", O_PATH | O_RDWR | O_CREAT | O_TRUNC); fcntl(7, 3, 0); fstat(7, BUFFER)
        dump_at(48, 8); fchdir(5); openat(5, "x", 0); open(".", O_PATH | O_DIRECTORY); fchdir(8); openat(8, "f", 0)
        getdents64(8, BUFFER, 100); open("f/", O_PATH); poke(BUFFER, 0); pread64(7, BUFFER, 1, 0)
        readv(7, words(BUFFER, 1), 1); poke(BUFFER, 7); poll(BUFFER, 1, 0); dump(8); sendfile(1, 7, 0, 10)
        close(7)""",
    "path: links in a circle": """
        symlink("b", "a"); symlink("a", "b"); open("a", 0); open("a", NEW, 0o600); stat("a", BUFFER)
        lstat("a", BUFFER); readlink("a", BUFFER, 10); dump(1); chdir("a"); unlink("a/"); mkdir("a", 0o700)
        mkdir("a/", 0o700); rmdir("a"); rename("a", "c"); stat("c", BUFFER); truncate("b", 0); access("b", 0)""",
    "path: links to directories": """
        mkdir("a", 0o755); mkdir("a/b", 0o755); symlink("a/b", "l"); symlink("../a", "a/up")
        open("l/f", NEW, 0o600); write(3, "x", 1); stat("a/b/f", BUFFER); stat("l/../b/f", BUFFER)
        stat("a/up/up/up/b/f", BUFFER); stat("a/up/../a/b/f", BUFFER); lstat("l/", BUFFER); dump_at(24, 4)
        lstat("l", BUFFER); dump_at(24, 4); unlink("l/"); rmdir("l/"); rmdir("l"); unlink("a"); unlink("a/")
        rmdir("a"); rmdir("a/."); rmdir("a/b/.."); rmdir("."); rmdir("/"); unlink("/"); unlink("."); unlink("..")
        rename("l/", "m"); rename("l", "m/"); rename("a", "m/"); rename("m", "a"); readlink("l", BUFFER, 3)
        dump(3); readlink("l", BUFFER, 0); readlink("l", BUFFER, -1); readlink("m", BUFFER, 9)
        readlink("none", BUFFER, 9); readlink("l", 0x1000, 9); readlink("", BUFFER, 9); readlink("l/", BUFFER, 9)""",
    "link: several names": """
        open("f", NEW, 0o644); link("f", "g"); link("f", "g"); link("none", "h"); link(".", "h"); link("f", "h/")
        link("f", "no/h"); fstat(3, BUFFER); dump_at(16, 12); unlink("f"); fstat(3, BUFFER); dump_at(16, 8)
        stat("f", BUFFER); unlink("g"); fstat(3, BUFFER); dump_at(16, 8); write(3, "text", 4)
        pread64(3, BUFFER, 10, 0); dump(4); symlink("nowhere", "s"); link("s", "s2"); lstat("s2", BUFFER)
        dump_at(16, 12); linkat(AT_FDCWD, "s", AT_FDCWD, "s3", 0x400)
        linkat(AT_FDCWD, "s", AT_FDCWD, "s3", 0x800); linkat(3, "", AT_FDCWD, "back", 0x1000); symlink("", "e")
        symlink("a", "s"); symlink("a", "s/"); symlink("a", "n/"); link("s", "x" * 256)
        symlink("x" * 256, "long"); readlink("long", BUFFER, 300); symlink("a"*4095, "longer")
        symlink("a"*4096, "longest")""",
    "mkdir, rmdir, chdir": """
        mkdir("a", 0o777); stat("a", BUFFER); dump_at(16, 12); mkdir("a", 0o777); mkdir("a/b/", 0o700)
        mkdir("a/x/y", 0o700); stat("a", BUFFER); dump_at(16, 8); mkdir(".", 0); mkdir("..", 0); mkdir("/", 0)
        mkdir("", 0); mkdir("x" * 256, 0); open("a/b/f", NEW, 0o600); rmdir("a/b"); rmdir("a/b/f")
        unlink("a/b/f/"); unlink("a/b/f"); chdir("a/b"); rmdir("../b"); getcwd(BUFFER, 100); open("f", NEW, 0o600)
        stat(".", BUFFER); dump_at(16, 8); stat("..", BUFFER); mkdir("x", 0o700); open(".", 0)
        getdents64(4, BUFFER, 1000); chdir(".."); getcwd(BUFFER, 2); getcwd(BUFFER, 0); rmdir("none"); rmdir("")
        chdir("f"); chdir("none"); fchdir(3); fchdir(77)""",
    "rename": """
        open("f", NEW, 0o644); mkdir("d", 0o755); mkdir("e", 0o755); mkdir("e/sub", 0o755); rename("f", "g")
        rename("f", "g"); rename("g", "d"); rename("d", "g"); rename("d", "e"); rename("e", "d")
        rename("d", "d/x"); rename("d/sub", "d"); rename("d", "d/sub/x"); rename("d", "d"); rename("g", "g")
        rename(".", "x"); rename("d/.", "x"); rename("d/..", "x"); rename("g", "."); rename("g", "..")
        rename("g", "h/"); rename("g/", "h"); rename("d/", "dd/")
        stat("dd", BUFFER); link("g", "h"); rename("g", "h"); stat("g", BUFFER); rename("none", "x")
        rename("", "x"); rename("g", ""); rename("g", "x" * 256); rename("x" * 256, "x")
        renameat2(AT_FDCWD, "g", AT_FDCWD, "h", 1); renameat2(AT_FDCWD, "g", AT_FDCWD, "i", 1)
        renameat2(AT_FDCWD, "h", AT_FDCWD, "dd", 2); stat("h", BUFFER); dump_at(24, 4)
        renameat2(AT_FDCWD, "h", AT_FDCWD, "none", 2); renameat2(AT_FDCWD, "h", AT_FDCWD, "dd", 3)
        renameat2(AT_FDCWD, "h", AT_FDCWD, "dd", 8); renameat2(AT_FDCWD, "h", AT_FDCWD, "h/sub", 2)
        renameat2(AT_FDCWD, "h/sub", AT_FDCWD, "h", 2); renameat2(AT_FDCWD, "h", AT_FDCWD, ".", 1)
        renameat2(AT_FDCWD, "h", AT_FDCWD, ".", 2); renameat2(AT_FDCWD, "none", AT_FDCWD, ".", 0)
        rename("h", "dd/"); rename("dd", "h"); rename("dd/", "new")""",
    "lseek, truncate, holes": """
        open("f", NEW, 0o644); lseek(3, 0x10000, 0); write(3, "end", 3); lseek(3, 0, 2); lseek(3, -1, 0)
        lseek(3, -0x20000, 1); lseek(3, 1<<62, 0); lseek(3, 1<<62, 1); lseek(3, (1<<63)-1, 0); lseek(3, 1, 1)
        lseek(3, 0, 5); lseek(3, 0, -1); lseek(3, 0, 3); lseek(3, 0, 4); lseek(3, 0x10000, 3)
        lseek(3, 0x10001, 4); lseek(3, 0x10003, 3); lseek(3, 0x10003, 4); lseek(3, -1, 3); lseek(1, 0, 0)
        lseek(99, 0, 0); pwrite64(3, "mid", 3, 0x8000); lseek(3, 0, 3); lseek(3, 0x8000, 4); lseek(3, 0x9000, 3)
        lseek(3, 0x10100, 3); pread64(3, BUFFER, 6, 0x7ffd); dump(6); ftruncate(3, 0x8001); lseek(3, 0x8000, 4)
        ftruncate(3, 0x9000); pread64(3, BUFFER, 4, 0x8000); dump(4); fstat(3, BUFFER); dump_at(48, 8)
        ftruncate(3, -1); ftruncate(0, 1); ftruncate(99, 1); truncate("f", 3); truncate("none", 3)
        truncate(".", 3); truncate("f", -1); fstat(3, BUFFER); dump_at(48, 8); open("f", 0); ftruncate(4, 0)
        ftruncate(3, 1<<62); fstat(3, BUFFER); dump_at(48, 8); pread64(3, BUFFER, 10, -1)
        pwrite64(3, BUFFER, 10, -1); pread64(1, BUFFER, 10, 0); pwrite64(0, BUFFER, 1, 0)
        pread64(99, BUFFER, 1, 0); pread64(99, BUFFER, 1, -1); pwrite64(4, BUFFER, 1, 0)
        pread64(3, BUFFER, 5, 1<<62); lseek(3, 0, 2); write(3, "x", 1); pwrite64(3, "x", 1, (1<<63)-1)
        pwrite64(3, "xy", 2, (1<<63)-2)""",
    "O_APPEND, fcntl": """
        open("f", NEW | O_APPEND, 0o644); write(3, "abc", 3); lseek(3, 0, 0); write(3, "def", 3); lseek(3, 0, 1)
        pwrite64(3, "XYZ", 3, 0); lseek(3, 0, 1); pread64(3, BUFFER, 20, 0); dump(9); fcntl(3, 3, 0)
        fcntl(3, 4, O_NONBLOCK); fcntl(3, 3, 0); lseek(3, 1, 0); write(3, "2", 1); fcntl(3, 4, -1); fcntl(3, 3, 0)
        open("f", O_WRONLY | O_TRUNC); fstat(3, BUFFER); dump_at(48, 8); fcntl(4, 3, 0); fcntl(4, 1, 0)
        fcntl(4, 2, 1); fcntl(4, 1, 0); open("f", O_CLOEXEC); fcntl(5, 1, 0); fcntl(5, 3, 0); fcntl(5, 0, 10)
        fcntl(10, 1, 0); fcntl(5, 1030, 10); fcntl(11, 1, 0); fcntl(5, 0, 1024); fcntl(5, 0, -1)
        fcntl(5, 1030, 5000); fcntl(5, 99, 0); fcntl(99, 3, 0); fcntl(0, 3, 0); fcntl(1, 3, 0)""",
    "dup and close_range": """
        dup(1); dup(99); dup2(1, 3); dup2(1, 1); dup2(99, 99); dup2(99, 5); dup2(1, -1); dup2(1, 1024)
        dup2(1, 1023); dup3(1, 1, 0); dup3(1, 9, O_CLOEXEC); fcntl(9, 1, 0); dup3(1, 9, 1); dup3(1, -1, 0)
        dup3(99, 9, 0); dup3(99, 9, 5); close_range(3, 2, 0); close_range(3, 10, 8); close_range(3, 3, 4)
        fcntl(3, 1, 0); close_range(3, 2000, 0); dup(1); close(-1); close(1<<32 | 3); dup(1)""",
    "readv and writev": """
        open("f", NEW, 0o644); writev(3, words(), 0); fill(100)
        writev(3, words(BUFFER, 3, BUFFER+10, 5, 0, 0, BUFFER+20, 1), 4)
        writev(3, words(BUFFER, 3, 0x1000, 5), 2); writev(3, words(0x1000, 5, BUFFER, 3), 2)
        writev(3, words(BUFFER, -1), 1); writev(3, words(BUFFER, 1<<62), 1); writev(3, words(BUFFER, 5), 1025)
        writev(3, words(BUFFER, 5), -1); writev(3, 0x1000, 1); writev(99, 0x1000, 1); lseek(3, 0, 1)
        preadv(3, words(BUFFER+100, 2, BUFFER+200, 7), 2, 0); dump_at(100, 2); dump_at(200, 7)
        preadv(3, words(BUFFER+100, 2, 0x1000, 7), 2, 0); preadv(3, words(0x1000, 2), 1, 0)
        preadv(3, words(0x1000, 2), 1, -1); preadv(1, words(0x1000, 2), 1, 0)
        pwritev(3, words(BUFFER+1, 2, BUFFER+4, 1), 2, 20); pread64(3, BUFFER+300, 30, 0); dump_at(300, 23)
        readv(3, words(BUFFER, 10, BUFFER, 10), 2); write(3, BUFFER, 0x7fffffffffff); read(3, BUFFER, -1)
        write(3, 0x1000, 0); read(3, -1, 0); write(3, BUFFER+0xff00, 0x200); lseek(3, 0, 0)
        read(3, BUFFER+0xfff0, 100); lseek(3, 0, 1); read(3, 0x1000, 5); write(3, 0x1000, 5); lseek(3, 0, 1)""",
    "stat and permissions": """
        open("f", NEW, 0o640); fstat(3, BUFFER); dump_at(24, 4); stat("f", BUFFER); stat("none", BUFFER)
        stat("f/", BUFFER); stat("f", 0x1000); stat("", BUFFER); newfstatat(3, "", BUFFER, 0x1000)
        newfstatat(3, "", BUFFER, 0); newfstatat(AT_FDCWD, "", BUFFER, 0x1000); dump_at(24, 4)
        newfstatat(3, "x", BUFFER, 0); newfstatat(99, "x", BUFFER, 0); newfstatat(AT_FDCWD, "f", BUFFER, 0x10)
        newfstatat(3, 0, BUFFER, 0x1000); newfstatat(3, 0, BUFFER, 0); fstat(99, BUFFER); fstat(3, 0x1000)
        fstat(0, BUFFER); dump_at(24, 4); fstat(1, BUFFER); dump_at(24, 4); chmod("f", 0o7777); fstat(3, BUFFER)
        dump_at(24, 4); fchmod(3, 0); fstat(3, BUFFER); dump_at(24, 4); chmod("none", 0); umask(0o77); umask(-1)
        mkdir("d", 0o777); stat("d", BUFFER); dump_at(24, 4); umask(0); mkdir("d2", 0o7777); stat("d2", BUFFER)
        dump_at(24, 4); open("f2", NEW, 0o7777); fstat(4, BUFFER); dump_at(24, 4); access("f", 0); access("f", 7)
        access("f2", 7); access("none", 0); access("f", 8); access("d", 7); faccessat2(AT_FDCWD, "f2", 1, 0x200)
        faccessat2(AT_FDCWD, "f2", 1, 1); faccessat2(4, "", 1, 0x1000); statx(AT_FDCWD, "f2", 0, 0x7ff, BUFFER)
        dump_at(16, 14); dump_at(40, 8); statx(AT_FDCWD, "none", 0, 0x7ff, BUFFER)
        statx(AT_FDCWD, "f", 0x6000, 0, BUFFER); statx(AT_FDCWD, "f", 0x10, 0, BUFFER)
        statx(4, "", 0x1000, 0, BUFFER); statx(4, 0, 0x1000, 0, BUFFER); statx(AT_FDCWD, "f", 0, 1<<31, BUFFER)
        statx(AT_FDCWD, "f", 0, 1, 0x1000); utimensat(AT_FDCWD, "f", words(5, 6, 7, 8), 0); stat("f", BUFFER)
        dump_at(72, 32); utimensat(AT_FDCWD, "f", words(5, 0x3ffffffe, 9, 0x3ffffffe), 0); stat("f", BUFFER)
        dump_at(72, 32); utimensat(AT_FDCWD, "f", words(5, -1, 9, 0), 0); utimensat(4, 0, words(1, 2, 3, 4), 0)
        utimensat(99, 0, words(1, 2, 3, 4), 0); utimensat(AT_FDCWD, "none", 0, 0)
        utimensat(AT_FDCWD, "f", 0x1000, 0)""",
    "pipe": """
        pipe2(BUFFER, O_NONBLOCK | O_CLOEXEC); fcntl(3, 3, 0); fcntl(4, 3, 0); fcntl(3, 1, 0); fcntl(4, 1, 0)
        read(3, BUFFER, 10); fill(40000); write(4, BUFFER, 40000); write(4, BUFFER, 40000); write(4, BUFFER, 1)
        read(3, BUFFER, 4096); write(4, BUFFER, 5000); write(4, BUFFER, 100); read(3, BUFFER, 3)
        write(4, BUFFER, 4096); read(3, BUFFER, 65535); read(3, BUFFER, 65535); read(3, BUFFER, 1)
        write(4, "a", 1); write(4, "bc", 2); read(3, BUFFER, 100); dump(3); read(3, 0x1000, 5); write(4, "abc", 3)
        read(3, 0x1000, 5); read(3, BUFFER, 0); read(3, BUFFER, 2); dump(2); write(4, 0x1000, 5)
        write(4, BUFFER+0xf000, 0x1001); write(4, BUFFER+0xe800, 0x2000); read(3, BUFFER, 65535)
        write(3, BUFFER, 1); read(4, BUFFER, 1); lseek(3, 0, 0); ftruncate(4, 0); fsync(4); fcntl(3, 1032, 0)
        fcntl(3, 1031, 100000); fcntl(3, 1031, 0); fcntl(3, 1031, 1<<31); fcntl(1, 99, 0)
        ioctl(3, 0x541b, BUFFER); fstat(3, BUFFER); dump_at(24, 4); pipe2(BUFFER, 1); pipe(0x1000); dup(3)
        close(5); getdents64(3, BUFFER, 100); close(4); read(3, BUFFER, 10)""",
    "pipe: SIGPIPE": """
        pipe(BUFFER); close(3); write(4, "x", 1)""",
    "poll": """
        pipe(BUFFER); poke(BUFFER+0x100, 3 | (5<<32)); poke(BUFFER+0x108, 4 | (5<<32)); poke(BUFFER+0x110, 77 | (5<<32))
        poke(BUFFER+0x118, 0xffffffff | (5<<32)); poll(BUFFER+0x100, 4, 0); dump_at(0x100, 32); write(4, "x", 1)
        poll(BUFFER+0x100, 2, -1); dump_at(0x100, 16); close(4); poll(BUFFER+0x100, 1, -1); dump_at(0x100, 8)
        open("f", NEW, 0o600); poke(BUFFER+0x108, 4 | (0x145<<32)); poll(BUFFER+0x108, 1, -1); dump_at(0x108, 8)
        poll(BUFFER, 2000, 0); poll(0x1000, 1, 0); poll(0x1000, 0, 0); ppoll(BUFFER+0x108, 1, words(0, 0), 0)
        ppoll(BUFFER+0x108, 1, words(0, -1), 0)""",
    "devices": """
        open("/dev/null", 2); write(3, 0x1000, 5); read(3, BUFFER, 5); lseek(3, 5, 0); lseek(3, 5, 1)
        open("/dev/zero", 2); fill(10); read(4, BUFFER, 5); dump(10); write(4, 0x1000, 7); read(4, 0x1000, 5)
        open("/dev/full", 2); write(5, BUFFER, 5); write(5, 0x1000, 5); write(5, BUFFER, 0); read(5, BUFFER, 9)
        fstat(3, BUFFER); dump_at(24, 4); dump_at(40, 8); open("/dev/urandom", 2); read(6, BUFFER, 100)
        write(6, BUFFER, 100); fcntl(3, 3, 0); pread64(4, BUFFER, 5, 100); pwrite64(3, BUFFER, 5, 100)
        ftruncate(3, 0); open("/dev/null", 1 | O_TRUNC | O_CREAT, 0o600); fsync(3); lseek(4, -7, 0); lseek(6, 5, 0)
        lseek(5, 5, 2); ioctl(3, 0x5401, BUFFER); ioctl(1, 0x5413, BUFFER); ioctl(99, 0x5413, BUFFER)
        ioctl(3, 0x541b, BUFFER); writev(3, words(0x1000, 5, BUFFER, 3), 2); write(3, -1, 5)
        write(3, BUFFER, 1<<62); readlink("/dev/fd", BUFFER, 100); readlink("/dev/stdin", BUFFER, 100); dump(15)""",
    "getdents64": """
        mkdir("sub", 0o755); open("sub/f1", NEW, 0o600); symlink("x", "sub/l"); mkdir("sub/d", 0o755)
        open("sub", O_DIRECTORY); getdents64(4, BUFFER, 30); getdents64(4, BUFFER, 10)
        getdents64(4, 0x1000, 1000); getdents64(3, BUFFER, 100); getdents64(99, BUFFER, 100); read(4, BUFFER, 10)
        lseek(4, 0, 0); lseek(4, -1, 0); write(4, BUFFER, 1); getdents64(4, BUFFER, 4096)
        getdents64(4, BUFFER, 4096); getdents64(4, BUFFER, 4096); ftruncate(4, 0); fsync(4); fcntl(4, 3, 0)
        pread64(4, BUFFER, 1, 0)""",
    "sendfile and copy_file_range": """
        open("f", NEW, 0o644); fill(5000); write(3, BUFFER, 5000); open("g", NEW, 0o644); sendfile(4, 3, 0, 100)
        lseek(3, 0, 0); sendfile(4, 3, 0, 100); lseek(3, 0, 1); lseek(4, 0, 1); sendfile(4, 3, words(50), 10)
        lseek(3, 0, 1); sendfile(1, 3, words(10), 20); sendfile(99, 3, 0, 1); sendfile(4, 99, 0, 1)
        sendfile(4, 0, 0, 1); sendfile(4, 3, words(-1), 5); sendfile(4, 3, 0x1000, 5); sendfile(4, 3, 0, -1)
        pread64(4, BUFFER, 200, 0); dump(110); sendfile(4, 3, 0, 1<<40); lseek(4, 0, 1)
        open("g", O_WRONLY | O_APPEND); sendfile(5, 3, words(0), 5)
        copy_file_range(3, words(5), 4, words(6), 10, 0); copy_file_range(3, words(5), 4, words(6), 10, 1)
        copy_file_range(3, words(0), 3, words(100), 50, 0); copy_file_range(3, words(0), 3, words(10), 50, 0)
        copy_file_range(0, 0, 3, 0, 50, 0); copy_file_range(3, 0, 5, 0, 50, 0); copy_file_range(5, 0, 3, 0, 50, 0)
        open(".", 0); copy_file_range(6, 0, 3, 0, 50, 0); sendfile(4, 6, 0, 5); pipe(BUFFER)
        sendfile(8, 3, words(0), 50); sendfile(4, 7, 0, 5); read(7, BUFFER, 100); dump(50)""",
    "memfd_create": """
        memfd_create("name", 0); write(3, "hello", 5); lseek(3, 0, 0); read(3, BUFFER, 9); dump(5); fcntl(3, 3, 0)
        fstat(3, BUFFER); dump_at(16, 12); memfd_create("n"*249, 1); fcntl(4, 1, 0); memfd_create("n"*250, 0)
        memfd_create("n", 0x1000000); memfd_create(0x1000, 0); memfd_create("", 0); ftruncate(3, 100000)
        fstat(3, BUFFER); dump_at(48, 8); readlink("/proc/self/fd/3", BUFFER, 100); dump(21)
        open("/proc/self/fd/3", 2); read(6, BUFFER, 3); dump(3)""",
    "files of /proc": """
        open("f", NEW, 0o600); unlink("f"); write(3, "gone", 4)
        open("/proc/self/fd/3", 2); read(4, BUFFER, 9); dump(4); readlink("/proc/self/fd/77", BUFFER, 100)
        open("/proc/self/fd/77", 0); stat("/proc/self/fd", BUFFER); lstat("/proc/self/fd/3", BUFFER)
        stat("/proc/self/root", BUFFER); open("/proc/self/root/..", O_DIRECTORY); open("/proc/none", 0)
        open("/proc/none", NEW, 0o600); mkdir("/proc/x", 0o700); unlink("/proc/meminfo"); rmdir("/proc/self/fd")
        rmdir("/proc/none"); link("/proc/meminfo", "m"); rename("/proc/meminfo", "m"); symlink("a", "/proc/x")
        open("/proc/self/cmdline", 0); lseek(6, 0, 0); open("/proc/version", 0); lseek(7, 0, 2)
        read(7, BUFFER, 5); dump(5); lseek(7, 1, 1); read(7, BUFFER, 5); dump(5); pread64(7, BUFFER, 5, 1)
        dump(5); open("/proc/self/comm", 0); open("/proc/swaps", 0); read(9, BUFFER, 100); dump(10)
        readlink("/proc/self", BUFFER, 0); open("/proc/self", O_NOFOLLOW); chdir("/proc/self/cwd")
        getdents64(7, BUFFER, 100); ioctl(7, 0x5401, BUFFER); fstat(7, BUFFER); dump_at(24, 4); dump_at(48, 8)
        stat("/proc/0", BUFFER); stat("/proc/99999999999999999999", BUFFER); stat("/proc/01", BUFFER)
        open("/proc/meminfo", O_RDWR); write(10, "x", 1); ftruncate(10, 0)""",
    "files of /proc/sys": """
        open("/proc/sys/vm/overcommit_memory", O_RDWR); read(3, BUFFER, 100); dump(2); stat("/proc/sys/vm", BUFFER)
        stat("/proc/sys/vm/swappiness", BUFFER); dump_at(24, 4); write(3, "x", 1); lseek(3, 0, SEEK_END)
        open("/proc/sys/none", NEW, 0o600); open("/proc/sys/vm", O_DIRECTORY)""",
    "mknod": """
        mknod("p", 0o010644, 0); stat("p", BUFFER); dump_at(24, 4); open("p", 1 | O_NONBLOCK); open("p", O_NONBLOCK)
        open("p", 1 | O_NONBLOCK); write(4, "hi", 2); read(3, BUFFER, 5); dump(2); read(3, BUFFER, 5); close(4)
        read(3, BUFFER, 5); open("p", 2); open("p", 0); write(4, "yo", 2); read(5, BUFFER, 9); dump(2)
        fcntl(4, 3, 0); mknod("p", 0o010644, 0); mknod("r", 0o644, 0); mknod("r2", 0o100644, 0)
        mknod("d", 0o040644, 0); mknod("l", 0o120644, 0); mknod("q", 0o170644, 0); stat("r", BUFFER)
        dump_at(24, 4); unlink("p")""",
    "paths from directories": """
        openat(AT_FDCWD, "", 0); unlinkat(AT_FDCWD, "", 0); unlinkat(AT_FDCWD, "x", 1); mkdirat(AT_FDCWD, "", 0)
        open("f", NEW, 0o644); openat(3, "", 0); openat(3, ".", 0); openat(3, "..", 0); unlinkat(3, "f", 0)
        unlinkat(AT_FDCWD, "f", 0x200); faccessat(AT_FDCWD, "f", 0); open("f/.", 0); open("f/..", 0)
        stat("f/../f", BUFFER); open("../d/f", 0); mkdir("s", 0o755); open("s", 0); openat(5, "x", NEW, 0o600)
        openat(5, "../f", 0); openat(5, "/", 0); unlinkat(5, "x", 0); unlinkat(AT_FDCWD, "s/", 0x200)
        openat(5, "x", NEW, 0o600); openat(5, ".", 0); openat(5, "..", 0); newfstatat(5, "", BUFFER, 0x1000)
        dump_at(16, 8); fchdir(5); getcwd(BUFFER, 100); chdir(".."); statfs(".", BUFFER); dump(16)
        statfs("none", BUFFER); getcwd(0x1000, 100)""",
    "path: forty links and no more": f"""
        mkdir("t", 0o755); {_LINKS}
        open("l38", O_DIRECTORY); open("l39", O_DIRECTORY); open("l40", O_DIRECTORY); open("l41", O_DIRECTORY)
        open("l19/../l19", O_DIRECTORY); open("l20/../l19", O_DIRECTORY); open("l20/../l18/", O_DIRECTORY)""",
    "open: as many files as there can be": f"""
        open(".", O_RDONLY); {"; ".join(["dup(3)"] * 1021)}
        open(".", O_RDONLY); pipe(BUFFER); fcntl(3, F_DUPFD, 0); close(900); pipe(BUFFER); open("none", O_RDONLY)
        open(".", O_RDONLY)""",
    "pipe: sixteen pages": f"""
        pipe2(BUFFER, O_NONBLOCK); {"; ".join(["write(4, BUFFER, 4095)"] * 18)}
        {"; ".join(["write(4, BUFFER, 1)"] * 18)}
        read(3, BUFFER, 65000); read(3, BUFFER, 65000)""",
}
"""Name to calls."""

ROOT_ONLY = {"stat and permissions"}
"""Cases in which the answer depends on who asks; under cr3 everybody is root."""
