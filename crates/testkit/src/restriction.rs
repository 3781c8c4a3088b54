//! Takes away what a server needs: io_uring, locked memory, or descriptors. For `pre_exec`, which runs between fork and exec: the
//! functions make system calls only, without allocations and locks.

use std::io;

/// Lowers RLIMIT_MEMLOCK to `bytes`, irrevocably.
pub fn limit_locked_memory(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: `limit` lives through the call, which only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) })
}

/// Lowers RLIMIT_NOFILE to `count`, irrevocably.
pub fn limit_descriptors(count: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: `limit` lives through the call, which only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Installs a seccomp filter that lets io_uring_setup fail with `errno` and allows all other system calls.
pub fn deny_io_uring(errno: i32) -> io::Result<()> {
    let load_number = libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        // Offset of the system call number in struct seccomp_data.
        k: 0,
    };
    let skip_one_unless_io_uring = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_io_uring_setup as u32,
    };
    let return_action =
        |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let mut filter = [
        load_number,
        skip_one_unless_io_uring,
        return_action(libc::SECCOMP_RET_ERRNO | errno as u32),
        return_action(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: prctl with these numbers takes integers, and for the filter a pointer to `program`,
    // which lives through the call together with the instructions it points to.
    let result = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        } else {
            -1
        }
    };
    check(result)
}
