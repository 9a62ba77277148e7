//! aws-chunked bodies in pieces that fit.
//!
//! s3s gathers a whole chunk before it hands it on, and a client may send an object as one chunk. Chunks without
//! signatures are therefore cut into small ones on their way in; a signed chunk cannot be cut, so large ones are
//! refused (SDKs send 64 KB to 1 MB).

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use s3s::StdError;

/// Largest signed chunk, bytes.
const MAX_SIGNED: u64 = 16 * 1024 * 1024;
/// Longest line before a chunk: a size and a signature.
const MAX_LINE: usize = 1_024;

/// A request body whose chunks fit in memory.
pub(super) struct Fitted<B> {
    inner: Pin<Box<B>>,
    state: State,
    signed: bool,
    out: VecDeque<Bytes>,
}

enum State {
    /// The line with the size, as far as it came.
    Line(Vec<u8>),
    /// Bytes of the chunk still to come.
    Data(u64),
    /// The line end after a chunk: so many bytes to come.
    End(u8),
    /// Not chunked, or after the last chunk, or malformed (s3s says so): as it comes.
    Plain,
}

impl<B> Fitted<B> {
    /// Reads the framing off the headers.
    pub(super) fn new(headers: &HeaderMap, body: B) -> Fitted<B> {
        let payload = headers.get("x-amz-content-sha256").map_or(&b""[..], |v| v.as_bytes());
        let state = if payload.starts_with(b"STREAMING-") { State::Line(Vec::new()) } else { State::Plain };
        let signed = payload != b"STREAMING-UNSIGNED-PAYLOAD-TRAILER";
        Fitted { inner: Box::pin(body), state, signed, out: VecDeque::new() }
    }

    fn take(&mut self, mut bytes: Bytes) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Plain => self.out.push_back(bytes.split_to(bytes.len())),
                State::Line(line) => {
                    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                    line.extend_from_slice(&bytes.split_to(end));
                    let size = match line.ends_with(b"\n") {
                        true => size_of(line),
                        false if line.len() <= MAX_LINE => continue,
                        false => None,
                    };
                    let line = Bytes::from(std::mem::take(line));
                    match size {
                        None | Some(0) => {
                            self.out.push_back(line);
                            self.state = State::Plain;
                        }
                        Some(size) if self.signed => {
                            if size > MAX_SIGNED {
                                return Err(TooLarge);
                            }
                            self.out.push_back(line);
                            self.state = State::Data(size);
                        }
                        Some(size) => self.state = State::Data(size),
                    }
                }
                State::Data(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let data = bytes.split_to(here);
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = State::End(2);
                    }
                    if self.signed {
                        self.out.push_back(data);
                    } else {
                        self.out.push_back(Bytes::from(format!("{here:x}\r\n")));
                        self.out.push_back(data);
                        self.out.push_back(Bytes::from_static(b"\r\n"));
                    }
                }
                State::End(left) => {
                    let expected = if *left == 2 { b'\r' } else { b'\n' };
                    if bytes[0] != expected {
                        // Handed on as it is, for s3s to refuse.
                        self.state = State::Plain;
                        continue;
                    }
                    if self.signed {
                        self.out.push_back(bytes.split_to(1));
                    } else {
                        // Ours was written with the data.
                        bytes.advance(1);
                    }
                    *left -= 1;
                    if *left == 0 {
                        self.state = State::Line(Vec::new());
                    }
                }
            }
        }
        Ok(())
    }
}

/// The size in `10000;chunk-signature=...\r\n`.
fn size_of(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let size = line.split(|b| *b == b';').next()?;
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

#[derive(Debug, thiserror::Error)]
#[error("chunk TooLarge: a signed chunk may have {MAX_SIGNED} bytes")]
struct TooLarge;

impl<B> Body for Fitted<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    StdError: From<B::Error>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match self.inner.as_mut().poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(e.into()))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        if let Err(e) = self.take(bytes) {
                            return Poll::Ready(Some(Err(e.into())));
                        }
                    }
                    // S3's trailers are in the chunked body, not in HTTP's.
                    Err(_trailers) => {}
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.out.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.state {
            State::Plain if self.out.is_empty() => self.inner.size_hint(),
            _ => http_body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};

    async fn through(payload: &str, body: &[u8], piece: usize) -> Result<Vec<u8>, StdError> {
        let frames: Vec<Result<Frame<Bytes>, std::io::Error>> =
            body.chunks(piece).map(|c| Ok(Frame::data(Bytes::copy_from_slice(c)))).collect();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-content-sha256", payload.parse()?);
        let fitted = Fitted::new(&headers, StreamBody::new(stream::iter(frames)));
        Ok(fitted.collect().await?.to_bytes().to_vec())
    }

    /// What a reader of aws-chunked makes of it: data, and the rest after the last chunk.
    fn decode(mut body: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut data = Vec::new();
        loop {
            let at = body.iter().position(|b| *b == b'\n').unwrap() + 1;
            let size = size_of(&body[..at]).unwrap() as usize;
            if size == 0 {
                return (data, body[at..].to_vec());
            }
            data.extend_from_slice(&body[at..at + size]);
            assert_eq!(&body[at + size..at + size + 2], b"\r\n");
            body = &body[at + size + 2..];
        }
    }

    #[tokio::test]
    async fn cut_chunks_say_the_same() {
        let body = b"b\r\nhello world\r\n3\r\na\r\n\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
        for piece in 1..body.len() {
            let cut = through("STREAMING-UNSIGNED-PAYLOAD-TRAILER", body, piece).await.unwrap();
            let (data, rest) = decode(&cut);
            assert_eq!(data, b"hello worlda\r\n", "{piece}");
            assert_eq!(rest, b"x-amz-checksum-crc32:DUoRhQ==\r\n\r\n");
        }
    }

    #[tokio::test]
    async fn signed_chunks_plain_bodies_and_nonsense_pass_as_they_are() {
        let signed = b"3;chunk-signature=00\r\nabc\r\n0;chunk-signature=11\r\n\r\n";
        for (payload, body) in [
            ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", &signed[..]),
            ("UNSIGNED-PAYLOAD", b"b\r\nhello"),
            ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", b"zz\r\nhello"),
        ] {
            for piece in [1, 2, 7, 100] {
                assert_eq!(through(payload, body, piece).await.unwrap(), body, "{payload} {piece}");
            }
        }
    }

    #[tokio::test]
    async fn a_signed_chunk_that_does_not_fit_is_refused() {
        let body = b"7fffffff;chunk-signature=00\r\nabc";
        let error = through("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", body, 9).await.unwrap_err();
        assert!(error.to_string().contains("TooLarge"));
    }
}
