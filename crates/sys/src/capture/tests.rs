//! A thread of this process is the program: a filter is a thread's own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::FromRawFd;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, socket_with};

use super::*;
use crate::socket;

const DEADLINE: Duration = Duration::from_secs(60);

/// A program under a filter, and where its calls come.
struct Program<T> {
    thread: JoinHandle<T>,
    notify: OwnedFd,
}

fn run<T: Send + 'static>(program: impl FnOnce() -> T + Send + 'static) -> Program<T> {
    let (sender, notify) = mpsc::channel();
    let thread = thread::spawn(move || {
        // SAFETY: this thread is the program, and its calls are answered.
        let fd = unsafe { install() }.unwrap();
        // SAFETY: the filter's descriptor belongs to nobody else.
        sender.send(unsafe { OwnedFd::from_raw_fd(fd) }).unwrap();
        program()
    });
    Program { thread, notify: notify.recv_timeout(DEADLINE).unwrap() }
}

impl<T> Program<T> {
    #[track_caller]
    fn next(&self) -> Request {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < DEADLINE, "no call");
            let mut look = [PollFd::new(&self.notify, PollFlags::IN)];
            poll(&mut look, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
            if let Some(request) = receive(&self.notify).unwrap() {
                assert!(is_waiting(&self.notify, request.id));
                return request;
            }
        }
    }

    /// Binds what the program wants to bind.
    #[track_caller]
    fn bind(&self) -> (Request, OwnedFd) {
        let request = self.next();
        let Call::Bind(Some(Address::Inet(address))) = request.call else { panic!("{request:?}") };
        let own = request.socket().unwrap();
        super::bind(&own, address).unwrap();
        answer(&self.notify, request.id, Ok(())).unwrap();
        (request, own)
    }

    fn end(self) -> T {
        let result = self.thread.join().unwrap();
        let ended = receive(&self.notify).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
        result
    }
}

fn tcp() -> OwnedFd {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// A port that nobody has at the moment.
fn free_port() -> SocketAddr {
    let probe = tcp();
    rustix::net::bind(&probe, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket::local_address(&probe).unwrap()
}

fn bind_and_listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let own = tcp();
    rustix::net::bind(&own, &address)?;
    rustix::net::listen(&own, 5)?;
    Ok(own)
}

fn answer_one(own: &OwnedFd) {
    let mut client = TcpStream::from(rustix::net::accept(own).unwrap());
    client.write_all(b"hello").unwrap();
}

#[test]
fn calls_are_done_on_a_duplicate() {
    let address = free_port();
    let program = run(move || {
        let own = bind_and_listen(address).unwrap();
        answer_one(&own);
        cookie(&own).unwrap()
    });
    let (_, own) = program.bind();
    assert_eq!(
        traits(&own).unwrap(),
        Traits { is_tcp: true, is_unix: false, is_multipath: false, v6only: false, reuse_port: true }
    );
    let request = program.next();
    assert_eq!(request.call, Call::Listen(5));
    assert!(!socket::is_listening(&own).unwrap());
    socket::listen(&own, 5).unwrap();
    answer(&program.notify, request.id, Ok(())).unwrap();
    let mut text = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(program.end(), cookie(&own).unwrap());
}

#[test]
fn refusals_and_what_is_let_go() {
    let program = run(|| {
        let refused = bind_and_listen(SocketAddr::from(([127, 0, 0, 1], 9))).unwrap_err();
        let any = tcp();
        rustix::net::bind(&any, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        (refused.raw_os_error(), socket::local_address(&any).unwrap().port())
    });
    let request = program.next();
    answer(&program.notify, request.id, Err(libc::EADDRINUSE)).unwrap();
    // Nobody waits for it any more.
    answer(&program.notify, request.id, Ok(())).unwrap();
    let request = program.next();
    assert!(matches!(request.call, Call::Bind(Some(Address::Inet(address))) if address.port() == 0));
    let_go(&program.notify, request.id).unwrap();
    let (refused, port) = program.end();
    assert_eq!(refused, Some(libc::EADDRINUSE));
    assert_ne!(port, 0);
}

#[test]
fn a_socket_that_is_left_is_taken_up() {
    let address = free_port();
    let left = tcp();
    super::bind(&left, address).unwrap();
    socket::listen(&left, 5).unwrap();
    // It waits in the queue since before there was a program.
    let mut client = TcpStream::connect(address).unwrap();
    let program = run(move || {
        let own = tcp();
        let twin = own.try_clone().unwrap();
        rustix::net::bind(&own, &address).unwrap();
        let same = cookie(&own).unwrap() == cookie(&twin).unwrap();
        answer_one(&own);
        same
    });
    let request = program.next();
    let standing = standing(&request).unwrap();
    assert!(standing.cloexec && !standing.in_epoll, "{standing:?}");
    assert_eq!(standing.others.len(), 1, "{standing:?}");
    for fd in standing.others.iter().chain([&request.fd]) {
        place(&program.notify, &request, &left, *fd, standing.cloexec).unwrap();
    }
    answer(&program.notify, request.id, Ok(())).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(program.end());
}

#[test]
fn an_epoll_instance_is_seen() {
    let address = free_port();
    let program = run(move || {
        let own = tcp();
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let data = rustix::event::epoll::EventData::new_u64(1);
        rustix::event::epoll::add(&epoll, &own, data, rustix::event::epoll::EventFlags::IN).unwrap();
        rustix::net::bind(&own, &address).unwrap();
    });
    let request = program.next();
    assert!(standing(&request).unwrap().in_epoll);
    answer(&program.notify, request.id, Ok(())).unwrap();
    program.end();
}

#[test]
fn who_has_a_socket() {
    let own = tcp();
    let inode = rustix::fs::fstat(&own).unwrap().st_ino;
    let this = rustix::process::getpid();
    assert!(has_socket(this, inode).unwrap());
    drop(own);
    assert!(!has_socket(this, inode).unwrap());
}

#[test]
fn this_kernel_can_do_it() {
    available().unwrap();
}

#[test]
fn paths_are_reported_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let place = fs::canonicalize(folder.path()).unwrap().join("s");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(".", &link).unwrap();
    let asked = link.join("s");
    let program = run({
        let asked = asked.clone();
        move || std::os::unix::net::UnixListener::bind(asked)
    });
    let request = program.next();
    assert_eq!(request.call, Call::Bind(Some(Address::Unix(asked.clone()))));
    assert_eq!(request.path(&asked).unwrap(), place);
    assert_eq!(request.path(Path::new("x")).unwrap(), std::env::current_dir().unwrap().join("x"));
    assert!(traits(request.socket().unwrap()).unwrap().is_unix);
    let_go(&program.notify, request.id).unwrap();
    let request = program.next();
    assert!(matches!(request.call, Call::Listen(_)));
    let_go(&program.notify, request.id).unwrap();
    program.end().unwrap();
}

#[test]
fn names_that_are_no_paths_are_none() {
    let check = |bytes: &[u8], expected: Option<&str>| {
        let bytes = [&1_u16.to_ne_bytes()[..], bytes].concat();
        assert_eq!(address(&bytes), expected.map(|path| Address::Unix(path.into())), "{bytes:?}");
    };
    check(b"/a", Some("/a"));
    check(b"/a\0rest", Some("/a"));
    check(b"\0abstract", None);
    check(b"", None);
}
