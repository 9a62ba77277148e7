//! Where the bytes of objects lie: in memory, or in files of the data directory.
//!
//! A blob is a list of segments, so that completing a multipart upload joins lists and moves no byte. A file is deleted
//! when the last reader lets go of it, not when the object is replaced.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use s3s::dto::StreamingBlob;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufWriter};

/// Bytes that are written or read at a time.
const PIECE: usize = 256 * 1024;

/// Bytes that the objects of one S3 may have in memory. AWS has no bound, this machine has.
const MAX_MEMORY: u64 = 4 << 30;

/// What is held in memory by all objects of one S3, bytes. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<AtomicU64>);

impl Memory {
    /// Takes room.
    ///
    /// Errors: `StorageFull`.
    fn take(&self, len: u64) -> io::Result<()> {
        if self.0.fetch_add(len, Ordering::Relaxed).saturating_add(len) <= MAX_MEMORY {
            return Ok(());
        }
        self.0.fetch_sub(len, Ordering::Relaxed);
        let gib = MAX_MEMORY >> 30;
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("This S3 of vpclab keeps objects in memory, {gib} GiB at most. Give services.s3 a data folder."),
        ))
    }
}

/// Bytes in memory; their room is free again when the last holder lets go.
#[derive(Debug)]
pub(super) struct Pieces {
    list: Vec<Bytes>,
    len: u64,
    memory: Memory,
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// A run of bytes.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    Memory(Arc<Pieces>),
    File(Arc<DataFile>),
}

/// A file of the data directory. It is removed when dropped unless it was kept: what was never committed, and what was
/// replaced, goes.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    pub(super) id: String,
    pub(super) len: u64,
    kept: AtomicBool,
}

impl DataFile {
    pub(super) fn new(path: PathBuf, id: String, len: u64, kept: bool) -> DataFile {
        DataFile { path, id, len, kept: AtomicBool::new(kept) }
    }

    /// Whether the file outlives this value.
    pub(super) fn keep(&self, kept: bool) {
        self.kept.store(kept, Ordering::Release);
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            // Nothing to do about a failure: what stays is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Segment {
    pub(super) fn len(&self) -> u64 {
        match self {
            Segment::Memory(pieces) => pieces.len,
            Segment::File(file) => file.len,
        }
    }

    /// Whether a file behind it outlives this value.
    pub(super) fn keep(&self, kept: bool) {
        if let Segment::File(file) = self {
            file.keep(kept);
        }
    }

    /// The same bytes under an id of their own: shared memory, or a hard link.
    pub(super) fn copy(&self, place: &Place) -> io::Result<Segment> {
        match (self, place) {
            (Segment::Memory(..), _) => Ok(self.clone()),
            (Segment::File(file), Place::Dir { dir, id }) => {
                let path = dir.join(id);
                if std::fs::hard_link(&file.path, &path).is_err() {
                    std::fs::copy(&file.path, &path)?;
                }
                Ok(Segment::File(Arc::new(DataFile::new(path, id.clone(), file.len, false))))
            }
            (Segment::File(_), Place::Memory(_)) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Where new bytes go.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Memory(Memory),
    Dir { dir: PathBuf, id: String },
}

/// Takes the bytes of one segment.
pub(super) enum Sink {
    Memory(MemorySink),
    File { file: BufWriter<tokio::fs::File>, data: DataFile },
}

impl Sink {
    pub(super) async fn open(place: Place) -> io::Result<Sink> {
        match place {
            Place::Memory(memory) => Ok(Sink::Memory(MemorySink::new(memory))),
            Place::Dir { dir, id } => {
                let path = dir.join(&id);
                let file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(&path).await?;
                let data = DataFile::new(path, id, 0, false);
                Ok(Sink::File { file: BufWriter::with_capacity(PIECE, file), data })
            }
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Memory(sink) => sink.write(bytes),
            Sink::File { file, data } => {
                data.len += bytes.len() as u64;
                file.write_all(bytes).await
            }
        }
    }

    /// The segment, on disk for certain if it goes there; not kept yet.
    pub(super) async fn finish(self) -> io::Result<Segment> {
        match self {
            Sink::Memory(sink) => Ok(sink.finish()),
            Sink::File { mut file, data } => {
                file.flush().await?;
                file.get_ref().sync_all().await?;
                Ok(Segment::File(Arc::new(data)))
            }
        }
    }
}

/// Gathers bytes in pieces of one size: what a connection hands over are slices of larger buffers.
pub(super) struct MemorySink {
    pieces: Pieces,
    open: BytesMut,
}

impl MemorySink {
    pub(super) fn new(memory: Memory) -> MemorySink {
        MemorySink { pieces: Pieces { list: Vec::new(), len: 0, memory }, open: BytesMut::new() }
    }

    /// Errors: as [`Memory::take`].
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.pieces.memory.take(bytes.len() as u64)?;
        self.pieces.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let take = bytes.len().min(PIECE - self.open.len());
            self.open.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.open.len() == PIECE {
                self.close();
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Segment {
        self.close();
        Segment::Memory(Arc::new(self.pieces))
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces.list.push(Bytes::copy_from_slice(&self.open));
            self.open.clear();
        }
    }
}

/// Copies a file of the user's into a segment, with `each` told of the bytes as they pass. Blocks.
pub(super) fn take_file(from: &Path, place: &Place, mut each: impl FnMut(&[u8])) -> io::Result<Segment> {
    use std::io::{Read, Write};
    enum Target {
        Memory(MemorySink),
        File(std::fs::File, DataFile),
    }
    let mut source = std::fs::File::open(from)?;
    let mut buffer = vec![0; PIECE];
    let mut target = match place {
        Place::Memory(memory) => Target::Memory(MemorySink::new(memory.clone())),
        Place::Dir { dir, id } => {
            let path = dir.join(id);
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
            Target::File(file, DataFile::new(path, id.clone(), 0, false))
        }
    };
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        each(&buffer[..n]);
        match &mut target {
            Target::Memory(sink) => sink.write(&buffer[..n])?,
            Target::File(file, data) => {
                data.len += n as u64;
                file.write_all(&buffer[..n])?;
            }
        }
    }
    match target {
        Target::Memory(sink) => Ok(sink.finish()),
        Target::File(file, data) => {
            file.sync_all()?;
            Ok(Segment::File(Arc::new(data)))
        }
    }
}

/// Streams a range of bytes of a list of segments; at most one piece is in memory at a time.
pub(super) fn read(segments: &[Segment], range: Range<u64>) -> StreamingBlob {
    let state = Reading { left: slices(segments, range), file: None };
    StreamingBlob::wrap(futures::stream::try_unfold(state, Reading::next))
}

/// A part of a piece of memory, or of a file.
enum Slice {
    Memory(Bytes),
    File(Arc<DataFile>, Range<u64>),
}

fn slices(segments: &[Segment], range: Range<u64>) -> VecDeque<Slice> {
    let mut found = VecDeque::new();
    let mut at = 0u64;
    // The part of [at, at + len) that is asked for, counted from `at`.
    let within = |at: u64, len: u64| {
        let (from, to) = (range.start.max(at), range.end.min(at + len));
        (from < to).then(|| from - at..to - at)
    };
    for segment in segments {
        match segment {
            Segment::File(file) => {
                if let Some(r) = within(at, file.len) {
                    found.push_back(Slice::File(Arc::clone(file), r));
                }
            }
            Segment::Memory(pieces) => {
                let mut piece_at = at;
                for piece in &pieces.list {
                    let len = piece.len() as u64;
                    if let Some(r) = within(piece_at, len) {
                        // Both ends are within the piece, so they fit.
                        found.push_back(Slice::Memory(piece.slice(r.start as usize..r.end as usize)));
                    }
                    piece_at += len;
                }
            }
        }
        at += segment.len();
    }
    found
}

struct Reading {
    left: VecDeque<Slice>,
    /// The file being read, how much of it is still to come, and what keeps it alive.
    file: Option<(tokio::fs::File, u64, Arc<DataFile>)>,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(Bytes, Reading)>> {
        loop {
            if let Some((file, left, _)) = &mut self.file {
                if *left == 0 {
                    self.file = None;
                    continue;
                }
                let want = usize::try_from(*left).unwrap_or(PIECE).min(PIECE);
                let mut buffer = BytesMut::with_capacity(want);
                let n = file.take(want as u64).read_buf(&mut buffer).await?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= n as u64;
                return Ok(Some((buffer.freeze(), self)));
            }
            match self.left.pop_front() {
                None => return Ok(None),
                Some(Slice::Memory(bytes)) => return Ok(Some((bytes, self))),
                Some(Slice::File(data, range)) => {
                    let mut file = tokio::fs::File::open(&data.path).await?;
                    file.seek(io::SeekFrom::Start(range.start)).await?;
                    self.file = Some((file, range.end - range.start, data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    async fn segment(place: Place, bytes: &[u8]) -> Segment {
        let mut sink = Sink::open(place).await.unwrap();
        for piece in bytes.chunks(77_777) {
            sink.write(piece).await.unwrap();
        }
        sink.finish().await.unwrap()
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn ranges_cross_pieces_and_segments() {
        let dir = tempfile::tempdir().unwrap();
        let whole = pattern(PIECE * 3 + 5);
        let (a, b) = whole.split_at(PIECE + 11);
        for on_disk in [false, true] {
            let place = |id: &str| match on_disk {
                true => Place::Dir { dir: dir.path().into(), id: id.into() },
                false => Place::Memory(Memory::default()),
            };
            let segments = [segment(place("a"), a).await, segment(place("b"), b).await];
            let len = whole.len() as u64;
            for range in [0..len, 0..1, len - 1..len, PIECE as u64..PIECE as u64 + 30, 3..3] {
                let got: Vec<Bytes> = read(&segments, range.clone()).try_collect().await.unwrap();
                assert!(got.concat() == whole[range.start as usize..range.end as usize], "{range:?}");
            }
        }
    }

    #[tokio::test]
    async fn memory_is_bounded_and_comes_back() {
        let memory = Memory::default();
        let held = || memory.0.load(Ordering::Relaxed);
        let first = segment(Place::Memory(memory.clone()), &pattern(1_000_000)).await;
        let copy = first.copy(&Place::Memory(memory.clone())).unwrap();
        drop(first);
        assert_eq!(held(), 1_000_000, "a copy shares the bytes");
        memory.0.store(MAX_MEMORY - 10, Ordering::Relaxed);
        let mut sink = MemorySink::new(memory.clone());
        sink.write(&[0; 10]).unwrap();
        assert_eq!(sink.write(&[0]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        drop(sink);
        assert_eq!(held(), MAX_MEMORY - 10, "an upload that failed gives back what it took");
        drop(copy);
        assert_eq!(held(), MAX_MEMORY - 1_000_010);
    }

    #[tokio::test]
    async fn a_replaced_file_lives_as_long_as_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let data = pattern(PIECE * 2);
        let made = segment(Place::Dir { dir: dir.path().into(), id: "x".into() }, &data).await;
        made.keep(true);
        let stream = read(std::slice::from_ref(&made), 0..data.len() as u64);
        made.keep(false);
        drop(made);
        assert!(dir.path().join("x").exists());
        let got: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert!(got.concat() == data);
        assert!(!dir.path().join("x").exists());
    }
}
