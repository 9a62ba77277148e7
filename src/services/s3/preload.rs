//! The contents that a topology gives its buckets.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::Backend;
use super::blob::{MemorySink, Place, Segment, take_file};
use super::checksum::{Algorithm, Checksum, Hasher, Kind};
use super::store::{BucketInfo, Headers, Object, ObjectInfo};
use crate::model::plan::{BucketFiles, BucketPlan};

/// Deepest folder below a bucket's directory.
const MAX_DEPTH: usize = 64;

/// Makes the buckets that are not there yet. Blocks.
pub(super) fn load(backend: &Backend, buckets: &[BucketPlan]) -> io::Result<()> {
    for bucket in buckets {
        if backend.store.buckets().contains_key(&bucket.name) {
            continue;
        }
        let info = BucketInfo { owner: backend.account.clone(), created: backend.now().0, tags: Vec::new() };
        backend.store.create_bucket_now(&bucket.name, info)?;
        match &bucket.files {
            BucketFiles::None => {}
            BucketFiles::Inline(files) => {
                for (key, text) in files {
                    put_text(backend, &bucket.name, key, text)?;
                }
            }
            BucketFiles::Directory(dir) => walk(backend, &bucket.name, dir, "", 0)?,
        }
    }
    Ok(())
}

fn put_text(backend: &Backend, bucket: &str, key: &str, text: &str) -> io::Result<()> {
    let place = backend.store.place(bucket);
    let mut hasher = Hasher::new(&[Algorithm::Crc64Nvme]);
    hasher.update(text.as_bytes());
    let segment = match &place {
        Place::Memory(memory) => {
            let mut sink = MemorySink::new(memory.clone());
            sink.write(text.as_bytes())?;
            sink.finish()
        }
        Place::Dir { dir, id } => {
            // Through a file of its own, so that both ways of contents meet in one function.
            let from = dir.join(format!("{id}.text"));
            std::fs::write(&from, text)?;
            let taken = take_file(&from, &place, |_| ());
            std::fs::remove_file(&from)?;
            taken?
        }
    };
    put(backend, bucket, key, hasher, segment)
}

/// Every file below a directory, its path with `/` as the key. Links to files are followed, links to directories are
/// not (they may lead round in a circle).
fn walk(backend: &Backend, bucket: &str, dir: &Path, prefix: &str, depth: usize) -> io::Result<()> {
    let at = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    if depth > MAX_DEPTH {
        return Err(at(dir, io::Error::other("folders are nested too deeply")));
    }
    let mut entries =
        std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(|e| at(dir, e))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(at(&path, io::Error::other("the name is not UTF-8, which S3 keys are")));
        };
        let key = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(|e| at(&path, e))?;
        if kind.is_dir() {
            walk(backend, bucket, &path, &format!("{key}/"), depth + 1)?;
            continue;
        }
        let meta = std::fs::metadata(&path).map_err(|e| at(&path, e))?;
        if !meta.is_file() {
            continue;
        }
        let mut hasher = Hasher::new(&[Algorithm::Crc64Nvme]);
        let place = backend.store.place(bucket);
        let segment = take_file(&path, &place, |b| hasher.update(b)).map_err(|e| at(&path, e))?;
        put(backend, bucket, &key, hasher, segment)?;
    }
    Ok(())
}

fn put(backend: &Backend, bucket: &str, key: &str, hasher: Hasher, segment: Segment) -> io::Result<()> {
    let sums = hasher.finish();
    let checksum = sums.get(Algorithm::Crc64Nvme).map(|value| Checksum {
        algorithm: Algorithm::Crc64Nvme,
        value,
        kind: Kind::FullObject,
    });
    let info = ObjectInfo {
        size: sums.len,
        etag: sums.etag(),
        modified: backend.now().0,
        headers: Headers { content_type: content_type(key).map(str::to_owned), ..Headers::default() },
        metadata: BTreeMap::new(),
        tags: Vec::new(),
        checksum,
        parts: Vec::new(),
    };
    backend.store.put_now(bucket, key, Object { info, segments: vec![segment] })
}

/// As `aws s3 cp` guesses it from the name.
fn content_type(key: &str) -> Option<&'static str> {
    let name = key.rsplit('/').next()?;
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "txt" | "log" => "text/plain",
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "csv" => "text/csv",
        "js" | "mjs" => "text/javascript",
        "json" => "application/json",
        "xml" => "text/xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "tar" => "application/x-tar",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}
