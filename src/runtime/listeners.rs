//! The small servers of `listen:`: real kernel sockets in an instance's namespace, served by tasks of the router process.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::base::Proto;
use crate::model::plan::{ListenReply, Listener};

/// Connections that one listener serves at a time; more wait in its backlog.
const MAX_CONNS: usize = 1_024;

/// How long `source` waits for a client to show that it speaks HTTP.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// How long after the last byte a client may take to close, and how long a TLS handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a listener says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// `app.web`.
    pub path: String,
    pub address: std::net::Ipv4Addr,
    /// Of its second and later ENIs.
    pub others: Vec<std::net::Ipv4Addr>,
}

/// Serves `listener` on `socket` (bound in the instance's namespace; for TCP also listening) until the task is dropped.
///
/// Errors: the descriptor is no such socket, or the reply is none that this protocol can give.
pub fn serve(
    socket: OwnedFd,
    listener: &Listener,
    tls: Option<TlsAcceptor>,
    who: &Identity,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let reply = Reply::of(listener, who)?;
    let delay = listener.delay;
    let bound = if listener.proto == Proto::UDP {
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        Bound::Udp(UdpSocket::from_std(socket)?)
    } else {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        Bound::Tcp(TcpListener::from_std(socket)?)
    };
    Ok(async move {
        match bound {
            Bound::Udp(socket) => serve_udp(socket, &reply).await,
            Bound::Tcp(listener) => serve_tcp(listener, tls, reply, delay).await,
        }
    })
}

enum Bound {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

#[derive(Clone)]
enum Reply {
    Hello(Bytes),
    Echo,
    Sink,
    Http(Bytes),
    Source,
    Proxy,
    Directory(Arc<Path>),
}

impl Reply {
    fn of(listener: &Listener, who: &Identity) -> io::Result<Reply> {
        let line = Bytes::from(format!("hello from {} {}:{}\n", who.path, who.address, listener.port));
        let reply = match &listener.reply {
            ListenReply::Hello => Reply::Hello(line),
            ListenReply::Echo => Reply::Echo,
            ListenReply::Sink => Reply::Sink,
            ListenReply::Http => Reply::Http(line),
            ListenReply::Source => Reply::Source,
            ListenReply::Proxy => Reply::Proxy,
            ListenReply::Directory(path) => Reply::Directory(path.canonicalize()?.into()),
        };
        if listener.proto == Proto::UDP && matches!(reply, Reply::Http(_) | Reply::Proxy | Reply::Directory(_)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this reply needs TCP"));
        }
        Ok(reply)
    }
}

async fn serve_udp(socket: UdpSocket, reply: &Reply) {
    let mut buf = vec![0; 65_535];
    loop {
        let Ok((len, peer)) = socket.recv_from(&mut buf).await else {
            // An ICMP error of an earlier answer; the socket is still good.
            tokio::task::yield_now().await;
            continue;
        };
        let sent = match reply {
            Reply::Echo => socket.send_to(&buf[..len], peer).await,
            Reply::Hello(line) => socket.send_to(line, peer).await,
            Reply::Source => socket.send_to(format!("{peer}\n").as_bytes(), peer).await,
            _ => Ok(0),
        };
        // A lost answer is UDP's business.
        drop(sent);
    }
}

async fn serve_tcp(listener: TcpListener, tls: Option<TlsAcceptor>, reply: Reply, delay: Duration) {
    let room = Arc::new(Semaphore::new(MAX_CONNS));
    // Dropping the set, with this task, ends the connections too.
    let mut conns = tokio::task::JoinSet::new();
    loop {
        while conns.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of descriptors, or the client went away first: neither is worth the listener.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let (tls, reply) = (tls.clone(), reply.clone());
        conns.spawn(async move {
            // Errors here are the client's: it went away, or speaks something else.
            let _ = one_connection(stream, peer, tls, &reply, delay).await;
            drop(place);
        });
    }
}

async fn one_connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    reply: &Reply,
    delay: Duration,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => answer(stream, peer, reply, delay).await,
        Some(tls) => answer(tokio::time::timeout(PATIENCE, tls.accept(stream)).await??, peer, reply, delay).await,
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut stream: S,
    peer: SocketAddr,
    reply: &Reply,
    delay: Duration,
) -> io::Result<()> {
    match reply {
        Reply::Hello(line) => say(stream, line, delay).await,
        Reply::Echo => {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await?;
            to.shutdown().await
        }
        Reply::Sink => {
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            Ok(())
        }
        Reply::Source => {
            let line = Bytes::from(format!("{peer}\n"));
            let mut first = [0; 8];
            let seen = match tokio::time::timeout(FIRST_WORDS, stream.read(&mut first)).await {
                Ok(read) => read?,
                Err(_) => 0,
            };
            if begins_http(&first[..seen]) {
                let stream = Replay { first, at: 0, len: seen, stream };
                http(stream, HttpReply::Text(line, delay)).await
            } else {
                say(stream, &line, delay).await
            }
        }
        Reply::Http(line) => http(stream, HttpReply::Text(line.clone(), delay)).await,
        Reply::Proxy => http(stream, HttpReply::Refuse).await,
        Reply::Directory(root) => http(stream, HttpReply::Directory(root.clone())).await,
    }
}

/// One line and FIN; then what the client sends is read away, so that closing does not reset what it has not read.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, line: &[u8], delay: Duration) -> io::Result<()> {
    tokio::time::sleep(delay).await;
    stream.write_all(line).await?;
    stream.shutdown().await?;
    let _ = tokio::time::timeout(PATIENCE, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
    Ok(())
}

fn begins_http(first: &[u8]) -> bool {
    const METHODS: [&[u8]; 7] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH "];
    METHODS.iter().any(|method| {
        let n = method.len().min(first.len());
        n > 0 && method[..n] == first[..n]
    })
}

/// A stream whose first bytes were read already.
struct Replay<S> {
    first: [u8; 8],
    at: usize,
    len: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if self.at < self.len {
            let n = (self.len - self.at).min(buf.remaining());
            buf.put_slice(&self.first[self.at..self.at + n]);
            self.at += n;
            return std::task::Poll::Ready(Ok(()));
        }
        std::pin::Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[derive(Clone)]
enum HttpReply {
    /// What, and how long after the question.
    Text(Bytes, Duration),
    Refuse,
    Directory(Arc<Path>),
}

type Body = BoxBody<Bytes, io::Error>;

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, reply: HttpReply) -> io::Result<()> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let reply = reply.clone();
        async move { Ok::<_, Infallible>(respond(&reply, request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        // A client that has sent its request may shut its writing side and still wants the answer.
        .half_close(true)
        .timer(hyper_util::rt::TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn respond(reply: &HttpReply, request: Request<Incoming>) -> Response<Body> {
    match reply {
        HttpReply::Text(line, delay) => {
            // The request's body is read to its end, so that the connection can be kept.
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            tokio::time::sleep(*delay).await;
            text(StatusCode::OK, line.clone())
        }
        HttpReply::Refuse => text(StatusCode::FORBIDDEN, Bytes::from_static(b"this proxy lets nobody through\n")),
        HttpReply::Directory(root) => directory(root, &request).await,
    }
}

fn text(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

async fn directory(root: &Path, request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, Bytes::from_static(b"GET and HEAD only\n"));
    }
    let not_found = || text(StatusCode::NOT_FOUND, Bytes::from_static(b"not found\n"));
    let Some(path) = inside(root, request.uri().path()) else { return not_found() };
    let Ok(meta) = tokio::fs::metadata(&path).await else { return not_found() };
    if meta.is_dir() {
        return match list(&path).await {
            Ok(listing) => text(StatusCode::OK, listing.into()),
            Err(_) => not_found(),
        };
    }
    let Ok(file) = tokio::fs::File::open(&path).await else { return not_found() };
    let chunks = stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; 64 << 10];
        let n = file.read(&mut chunk).await?;
        chunk.truncate(n);
        Ok((n > 0).then(|| (Frame::data(Bytes::from(chunk)), file)))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(chunks)));
    response.headers_mut().insert(http::header::CONTENT_LENGTH, meta.len().into());
    response
}

/// The file that a URL path names, if it lies under `root` (which is canonical) after links are followed.
fn inside(root: &Path, url_path: &str) -> Option<PathBuf> {
    let decoded = percent_encoding::percent_decode_str(url_path).decode_utf8().ok()?;
    let mut path = root.to_owned();
    for component in Path::new(decoded.as_ref()).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let path = path.canonicalize().ok()?;
    path.starts_with(root).then_some(path)
}

/// `index.html` where there is one, otherwise one name on each line.
async fn list(dir: &Path) -> io::Result<String> {
    if let Ok(index) = tokio::fs::read_to_string(dir.join("index.html")).await {
        return Ok(index);
    }
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        let slash = if entry.file_type().await?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}\n", entry.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(names.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(proto: Proto, reply: ListenReply) -> Listener {
        Listener { proto, port: 80, reply, tls: None, delay: Duration::ZERO }
    }

    fn who() -> Identity {
        Identity { path: "app.web".into(), address: [10, 0, 1, 10].into(), others: Vec::new() }
    }

    fn started(reply: ListenReply) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let addr = socket.local_addr().expect("bound");
        let serving = serve(socket.into(), &listener(Proto::TCP, reply), None, &who()).expect("a TCP socket");
        (addr, tokio::spawn(serving))
    }

    async fn exchange(addr: SocketAddr, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("connect");
        stream.write_all(sent).await.expect("send");
        stream.shutdown().await.expect("shutdown");
        let mut got = String::new();
        stream.read_to_string(&mut got).await.expect("read");
        got
    }

    #[tokio::test]
    async fn each_reply_says_what_the_schema_promises() {
        let (addr, task) = started(ListenReply::Hello);
        assert_eq!(exchange(addr, b"").await, "hello from app.web 10.0.1.10:80\n");
        task.abort();

        let (addr, task) = started(ListenReply::Echo);
        assert_eq!(exchange(addr, b"abc").await, "abc");
        task.abort();

        let (addr, task) = started(ListenReply::Http);
        let got =
            exchange(addr, b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi").await;
        assert!(got.starts_with("HTTP/1.1 200 OK"), "{got}");
        assert!(got.ends_with("hello from app.web 10.0.1.10:80\n"), "{got}");
        task.abort();

        let (addr, task) = started(ListenReply::Proxy);
        let got = exchange(addr, b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 403 "), "{got}");
        task.abort();
    }

    #[tokio::test]
    async fn source_tells_the_peer_its_address_in_the_language_it_was_asked_in() {
        let (addr, task) = started(ListenReply::Source);
        assert!(exchange(addr, b"").await.starts_with("127.0.0.1:"));
        let got = exchange(addr, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 200 OK") && got.contains("\r\n\r\n127.0.0.1:"), "{got}");
        task.abort();
    }

    #[tokio::test]
    async fn an_answer_comes_as_late_as_it_should() {
        for reply in [ListenReply::Hello, ListenReply::Http, ListenReply::Source] {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
            let addr = socket.local_addr().expect("bound");
            let slow = Listener { delay: Duration::from_millis(300), ..listener(Proto::TCP, reply) };
            let task = tokio::spawn(serve(socket.into(), &slow, None, &who()).expect("a TCP socket"));
            let began = std::time::Instant::now();
            let got = exchange(addr, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            assert!(!got.is_empty() && began.elapsed() >= slow.delay, "{got} after {:?}", began.elapsed());
            task.abort();
        }
    }

    #[tokio::test]
    async fn a_directory_is_served_and_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("secret"), "no").expect("write");
        let root = dir.path().join("www");
        std::fs::create_dir(&root).expect("mkdir");
        std::fs::write(root.join("a b.txt"), "content").expect("write");
        std::os::unix::fs::symlink("../secret", root.join("link")).expect("symlink");
        let (addr, task) = started(ListenReply::Directory(root));
        let get = |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            async move { exchange(addr, request.as_bytes()).await }
        };
        assert!(get("/a%20b.txt").await.ends_with("\r\n\r\ncontent"));
        assert!(get("/").await.ends_with("\r\n\r\na b.txt\nlink\n"));
        for outside in ["/../secret", "/%2e%2e/secret", "/link", "/none"] {
            assert!(get(outside).await.starts_with("HTTP/1.1 404 "), "{outside}");
        }
        task.abort();
    }

    #[tokio::test]
    async fn udp_answers_each_datagram() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let addr = socket.local_addr().expect("bound");
        let serving =
            serve(socket.into(), &listener(Proto::UDP, ListenReply::Source), None, &who()).expect("a UDP socket");
        let task = tokio::spawn(serving);
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        client.send_to(b"?", addr).await.expect("send");
        let mut buf = [0; 64];
        let (n, _) = client.recv_from(&mut buf).await.expect("answer");
        assert_eq!(buf[..n], *format!("{}\n", client.local_addr().expect("bound")).as_bytes());
        task.abort();
    }

    #[test]
    fn http_over_udp_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        let _inside = runtime.enter();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        assert!(serve(socket.into(), &listener(Proto::UDP, ListenReply::Http), None, &who()).is_err());
    }
}
