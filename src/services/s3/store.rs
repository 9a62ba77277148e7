//! Buckets and objects: an index in memory, and on disk, if there is a data directory, one sidecar file per object.
//!
//! ```text
//! DIR/BUCKET/bucket.json              owner, creation date, tags
//! DIR/BUCKET/objects/SHA256(KEY).json what the index holds of an object, with the names of its data files
//! DIR/BUCKET/data/ID                  bytes
//! ```
//!
//! An object exists when its sidecar does: bytes are on disk before the sidecar is renamed into place, and data files
//! that no sidecar names are removed at the start. Multipart uploads in progress do not outlive the lab.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use s3s::S3Result;
use serde::{Deserialize, Serialize};

use super::blob::{DataFile, Memory, Place, Segment};
use super::checksum::{Algorithm, Checksum, Kind, hex};
use super::error::{disk, fail};
use crate::base::UnixTime;

/// What a bucket is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BucketInfo {
    /// Account, 12 digits.
    pub(super) owner: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    #[serde(default)]
    pub(super) tags: Vec<(String, String)>,
}

/// What an object is, apart from its bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ObjectInfo {
    pub(super) size: u64,
    /// Without quotes.
    pub(super) etag: String,
    /// Seconds since 1970.
    pub(super) modified: u64,
    pub(super) headers: Headers,
    /// `x-amz-meta-...`.
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tags: Vec<(String, String)>,
    pub(super) checksum: Option<Checksum>,
    /// Of an object made by a multipart upload.
    pub(super) parts: Vec<PartInfo>,
}

/// Headers that come back as they were sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Headers {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) cache_control: Option<String>,
    /// Seconds since 1970.
    pub(super) expires: Option<i64>,
    pub(super) redirect: Option<String>,
    /// `None`: STANDARD.
    pub(super) storage_class: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PartInfo {
    pub(super) number: i32,
    pub(super) size: u64,
    pub(super) checksum: Option<String>,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) info: ObjectInfo,
    pub(super) segments: Vec<Segment>,
}

impl Object {
    fn keep(&self, kept: bool) {
        for segment in &self.segments {
            segment.keep(kept);
        }
    }
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) info: BucketInfo,
    pub(super) objects: BTreeMap<String, Arc<Object>>,
    /// By key and upload id.
    pub(super) uploads: BTreeMap<(String, String), Upload>,
}

/// A multipart upload in progress.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) started: UnixTime,
    pub(super) headers: Headers,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tags: Vec<(String, String)>,
    pub(super) algorithm: Algorithm,
    pub(super) kind: Kind,
    /// The client named the algorithm, so its parts must carry it.
    pub(super) asked: bool,
    /// ARN of who began it.
    pub(super) initiator: String,
    pub(super) parts: BTreeMap<i32, Part>,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) md5: [u8; 16],
    pub(super) checksum: Option<String>,
    pub(super) modified: UnixTime,
    pub(super) segment: Segment,
}

/// Shared by all requests.
#[derive(Debug)]
pub(super) struct Store {
    dir: Option<PathBuf>,
    buckets: Mutex<BTreeMap<String, Bucket>>,
    /// Held from the check of a write's conditions until it is in the index.
    commit: tokio::sync::Mutex<()>,
    next: AtomicU64,
    /// What objects hold of it, where there is no directory.
    memory: Memory,
    salt: u64,
}

/// On disk.
#[derive(Serialize, Deserialize)]
struct Sidecar {
    key: String,
    info: ObjectInfo,
    /// Names and lengths of the data files.
    data: Vec<(String, u64)>,
}

impl Store {
    /// Opens the directory, which is made if missing, or a store in memory. `salt` makes ids unlike those of another
    /// start.
    ///
    /// # Errors
    /// Those of the file system, with the path; a file there that is none of ours.
    pub(super) fn open(dir: Option<PathBuf>, salt: u64) -> io::Result<Store> {
        let buckets = match &dir {
            None => BTreeMap::new(),
            Some(dir) => load(dir)?,
        };
        Ok(Store {
            dir,
            buckets: Mutex::new(buckets),
            commit: tokio::sync::Mutex::default(),
            next: AtomicU64::new(0),
            memory: Memory::default(),
            salt,
        })
    }

    /// The index. Never held across an await.
    pub(super) fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks into a bucket.
    pub(super) fn bucket<T>(&self, name: &str, look: impl FnOnce(&mut Bucket) -> S3Result<T>) -> S3Result<T> {
        match self.buckets().get_mut(name) {
            Some(bucket) => look(bucket),
            None => Err(fail("NoSuchBucket")),
        }
    }

    /// An object.
    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.bucket(bucket, |b| b.objects.get(key).cloned().ok_or_else(|| fail("NoSuchKey")))
    }

    /// A number that this start has not given out, made opaque.
    pub(super) fn fresh_id(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut seed = self.salt.to_be_bytes().to_vec();
        seed.extend(n.to_be_bytes());
        hex(digest::digest(&digest::SHA256, &seed).as_ref())
    }

    /// Where new bytes for a bucket go.
    pub(super) fn place(&self, bucket: &str) -> Place {
        match &self.dir {
            None => Place::Memory(self.memory.clone()),
            Some(dir) => Place::Dir { dir: dir.join(bucket).join("data"), id: self.fresh_id() },
        }
    }

    /// Makes a bucket; `made` decides about one that is there.
    pub(super) async fn create_bucket(
        &self,
        name: &str,
        info: BucketInfo,
        exists: impl FnOnce(&BucketInfo) -> S3Result<()>,
    ) -> S3Result<()> {
        let _commit = self.commit.lock().await;
        if let Some(there) = self.buckets().get(name) {
            return exists(&there.info);
        }
        self.create_bucket_now(name, info).map_err(disk)
    }

    /// As `create_bucket`, at the start. Blocks for the time of two small files.
    pub(super) fn create_bucket_now(&self, name: &str, info: BucketInfo) -> io::Result<()> {
        if let Some(dir) = &self.dir {
            let home = dir.join(name);
            for folder in [home.join("data"), home.join("objects")] {
                std::fs::create_dir_all(folder)?;
            }
            write_json(&home.join("bucket.json"), &info)?;
        }
        let bucket = Bucket { info, objects: BTreeMap::new(), uploads: BTreeMap::new() };
        self.buckets().entry(name.to_owned()).or_insert(bucket);
        Ok(())
    }

    /// Removes an empty bucket, with the uploads in progress.
    pub(super) async fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let _commit = self.commit.lock().await;
        self.bucket(name, |b| if b.objects.is_empty() { Ok(()) } else { Err(fail("BucketNotEmpty")) })?;
        if let Some(dir) = &self.dir {
            let home = dir.join(name);
            // bucket.json goes first: a folder without it is a leftover, whatever happens next.
            std::fs::remove_file(home.join("bucket.json")).map_err(disk)?;
            std::fs::remove_dir_all(&home).map_err(disk)?;
        }
        self.buckets().remove(name);
        Ok(())
    }

    /// Changes what a bucket is.
    pub(super) async fn change_bucket(&self, name: &str, change: impl FnOnce(&mut BucketInfo)) -> S3Result<()> {
        let _commit = self.commit.lock().await;
        let mut info = self.bucket(name, |b| Ok(b.info.clone()))?;
        change(&mut info);
        if let Some(dir) = &self.dir {
            write_json(&dir.join(name).join("bucket.json"), &info).map_err(disk)?;
        }
        self.bucket(name, |b| {
            b.info = info;
            Ok(())
        })
    }

    /// Puts an object in place of what is there, if `allowed` says so of it.
    pub(super) async fn put(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        object: Object,
        allowed: impl FnOnce(Option<&Object>) -> S3Result<()>,
    ) -> S3Result<Arc<Object>> {
        let staged = self.stage(bucket, key, &object).await?;
        let _commit = self.commit.lock().await;
        self.bucket(bucket, |b| allowed(b.objects.get(key).map(|o| &**o)))?;
        if let Some(staged) = staged {
            let renamed = tokio::task::spawn_blocking(move || staged.commit()).await;
            renamed.map_err(io::Error::other).and_then(|r| r).map_err(disk)?;
        }
        Ok(self.insert(bucket, key, object))
    }

    /// Puts an object at the start. Blocks.
    pub(super) fn put_now(&self, bucket: &str, key: &str, object: Object) -> io::Result<()> {
        if let Some(dir) = &self.dir {
            Staged::write(sidecar_path(dir, bucket, key), key, &object, &self.fresh_id())?.commit()?;
        }
        self.insert(bucket, key, object);
        Ok(())
    }

    /// Removes an object, if `allowed` says so of it. What is not there is removed at once.
    pub(super) async fn delete(
        &self,
        bucket: &str,
        key: &str,
        allowed: impl FnOnce(&Object) -> S3Result<()>,
    ) -> S3Result<()> {
        let _commit = self.commit.lock().await;
        let Some(object) = self.bucket(bucket, |b| Ok(b.objects.get(key).cloned()))? else { return Ok(()) };
        allowed(&object)?;
        if let Some(dir) = &self.dir {
            std::fs::remove_file(sidecar_path(dir, bucket, key)).map_err(disk)?;
        }
        self.bucket(bucket, |b| Ok(b.objects.remove(key)))?;
        object.keep(false);
        Ok(())
    }

    /// Changes what an object is; its bytes stay.
    pub(super) async fn change(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        change: impl FnOnce(&mut ObjectInfo),
    ) -> S3Result<()> {
        let _commit = self.commit.lock().await;
        let old = self.object(bucket, key)?;
        let mut object = Object { info: old.info.clone(), segments: old.segments.clone() };
        change(&mut object.info);
        if let Some(staged) = self.stage(bucket, key, &object).await? {
            staged.commit().map_err(disk)?;
        }
        self.bucket(bucket, |b| Ok(b.objects.insert(key.to_owned(), Arc::new(object))))?;
        Ok(())
    }

    fn insert(&self, bucket: &str, key: &str, object: Object) -> Arc<Object> {
        object.keep(true);
        let object = Arc::new(object);
        let mut buckets = self.buckets();
        if let Some(b) = buckets.get_mut(bucket)
            && let Some(old) = b.objects.insert(key.to_owned(), Arc::clone(&object))
        {
            old.keep(false);
        }
        object
    }

    /// Writes the sidecar beside its place.
    async fn stage(self: &Arc<Self>, bucket: &str, key: &str, object: &Object) -> S3Result<Option<Staged>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let (path, id) = (sidecar_path(dir, bucket, key), self.fresh_id());
        let sidecar = Sidecar::of(key, object);
        let staged = tokio::task::spawn_blocking(move || Staged::write_sidecar(path, &sidecar, &id)).await;
        match staged {
            Ok(Ok(staged)) => Ok(Some(staged)),
            Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Err(fail("NoSuchBucket")),
            Ok(Err(e)) => Err(disk(e)),
            Err(e) => Err(disk(io::Error::other(e))),
        }
    }
}

impl Sidecar {
    fn of(key: &str, object: &Object) -> Sidecar {
        let data = object.segments.iter().filter_map(|s| match s {
            Segment::File(file) => Some((file.id.clone(), file.len)),
            Segment::Memory(..) => None,
        });
        Sidecar { key: key.to_owned(), info: object.info.clone(), data: data.collect() }
    }
}

/// A sidecar that waits to be renamed; removed if it never is.
struct Staged {
    from: PathBuf,
    to: PathBuf,
    done: bool,
}

impl Staged {
    fn write(to: PathBuf, key: &str, object: &Object, id: &str) -> io::Result<Staged> {
        Staged::write_sidecar(to, &Sidecar::of(key, object), id)
    }

    fn write_sidecar(to: PathBuf, sidecar: &Sidecar, id: &str) -> io::Result<Staged> {
        let from = to.with_file_name(format!(".{id}.tmp"));
        let staged = Staged { from, to, done: false };
        write_synced(&staged.from, sidecar)?;
        Ok(staged)
    }

    fn commit(mut self) -> io::Result<()> {
        std::fs::rename(&self.from, &self.to)?;
        self.done = true;
        sync_folder(&self.to)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.from);
        }
    }
}

fn sidecar_path(dir: &Path, bucket: &str, key: &str) -> PathBuf {
    let name = hex(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    dir.join(bucket).join("objects").join(format!("{name}.json"))
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    write_synced(&temporary, value)?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)
}

fn write_synced(path: &Path, value: &impl Serialize) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()
}

/// A rename is for certain when the folder is on disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn load(dir: &Path) -> io::Result<BTreeMap<String, Bucket>> {
    let at = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(|e| at(dir, e))?;
    let mut buckets = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(|e| at(dir, e))? {
        let home = entry?.path();
        let file = home.join("bucket.json");
        let name = home.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            // Somebody else's file, or a bucket that was being deleted. Neither is ours to remove.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(at(&file, e)),
        };
        let info: BucketInfo = serde_json::from_slice(&text).map_err(|e| at(&file, e.into()))?;
        let objects = load_objects(&home)?;
        buckets.insert(name, Bucket { info, objects, uploads: BTreeMap::new() });
    }
    Ok(buckets)
}

fn load_objects(home: &Path) -> io::Result<BTreeMap<String, Arc<Object>>> {
    let at = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let (folder, data) = (home.join("objects"), home.join("data"));
    for folder in [&folder, &data] {
        std::fs::create_dir_all(folder).map_err(|e| at(folder, e))?;
    }
    let mut objects = BTreeMap::new();
    let mut named = HashSet::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| at(&folder, e))? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "json") {
            // A sidecar that was never renamed: ours by its folder and form.
            if path.extension().is_some_and(|e| e == "tmp") {
                let _ = std::fs::remove_file(&path);
            }
            continue;
        }
        let text = std::fs::read(&path).map_err(|e| at(&path, e))?;
        let sidecar: Sidecar = serde_json::from_slice(&text).map_err(|e| at(&path, e.into()))?;
        let segment =
            |(id, len): &(String, u64)| Segment::File(Arc::new(DataFile::new(data.join(id), id.clone(), *len, true)));
        let segments = sidecar.data.iter().map(segment).collect();
        named.extend(sidecar.data.into_iter().map(|(id, _)| id));
        objects.insert(sidecar.key, Arc::new(Object { info: sidecar.info, segments }));
    }
    for entry in std::fs::read_dir(&data).map_err(|e| at(&data, e))? {
        let path = entry?.path();
        if !path.file_name().and_then(|n| n.to_str()).is_some_and(|n| named.contains(n)) {
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::super::blob::Sink;
    use super::*;

    async fn object(store: &Store, text: &str) -> Object {
        let mut sink = Sink::open(store.place("b")).await.unwrap();
        sink.write(text.as_bytes()).await.unwrap();
        let info = ObjectInfo { size: text.len() as u64, etag: text.into(), ..ObjectInfo::default() };
        Object { info, segments: vec![sink.finish().await.unwrap()] }
    }

    fn bucket() -> BucketInfo {
        BucketInfo { owner: "123456789012".into(), created: 1, tags: Vec::new() }
    }

    fn data_files(dir: &Path) -> usize {
        std::fs::read_dir(dir.join("b/data")).unwrap().count()
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_a_new_start_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(Some(dir.path().into()), 1).unwrap());
        store.create_bucket_now("b", bucket()).unwrap();
        for (key, text) in [("a", "first"), ("a", "second"), ("x/../y", "odd key"), ("gone", "gone")] {
            let made = object(&store, text).await;
            store.put("b", key, made, |_| Ok(())).await.unwrap();
        }
        store.delete("b", "gone", |_| Ok(())).await.unwrap();
        store.change("b", "a", |info| info.tags.push(("k".into(), "v".into()))).await.unwrap();
        let refused = object(&store, "refused").await;
        store.put("b", "a", refused, |_| Err(fail("PreconditionFailed"))).await.unwrap_err();
        assert_eq!(data_files(dir.path()), 2, "replaced, deleted and refused bytes are gone");
        std::fs::write(dir.path().join("b/data/leftover"), "of a crash").unwrap();
        drop(store);

        let store = Store::open(Some(dir.path().into()), 2).unwrap();
        assert_eq!(data_files(dir.path()), 2);
        let buckets = store.buckets();
        let found: Vec<_> = buckets["b"].objects.iter().map(|(k, o)| (k.as_str(), o.info.etag.as_str())).collect();
        assert_eq!(found, [("a", "second"), ("x/../y", "odd key")]);
        assert_eq!(buckets["b"].objects["a"].info.tags.len(), 1);
    }

    #[tokio::test]
    async fn a_bucket_with_objects_stays() {
        let store = Arc::new(Store::open(None, 1).unwrap());
        store.create_bucket_now("b", bucket()).unwrap();
        let made = object(&store, "x").await;
        store.put("b", "k", made, |_| Ok(())).await.unwrap();
        assert_eq!(store.delete_bucket("b").await.unwrap_err().code().as_str(), "BucketNotEmpty");
        store.delete("b", "k", |_| Ok(())).await.unwrap();
        store.delete_bucket("b").await.unwrap();
        assert_eq!(store.object("b", "k").unwrap_err().code().as_str(), "NoSuchBucket");
    }
}
