//! Where programs keep the certificates that they trust.
//!
//! Environment variables are not enough: aws-cli and boto3 obey `AWS_CA_BUNDLE`, but a setting in a profile or in code
//! wins, and other programs read other variables or none. So the lab's bundle is laid over the files themselves:
//! the system's, and those that Python packages bring along.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::host::userns::executable;

/// The system's bundle: Debian, Ubuntu, Arch, Alpine; RHEL and Fedora; openSUSE; OpenSSL's own name.
pub(super) const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Bundles that Python packages bring along, below a folder of packages.
const PYTHON: [&str; 4] =
    ["certifi/cacert.pem", "botocore/cacert.pem", "awscli/botocore/cacert.pem", "pip/_vendor/certifi/cacert.pem"];

/// Every file to lay the bundle over, links followed: the system's, those of the Python that runs the command, of
/// `$VIRTUAL_ENV`, of the `aws` and `python3` on the PATH, of the system, and of the user's own packages.
pub(super) fn files(argv: &[OsString], homes: &[PathBuf]) -> BTreeSet<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut prefixes = BTreeSet::new();
    let named = argv.first().map(OsString::as_os_str).into_iter();
    for program in named.chain(["aws", "python3", "python"].map(OsStr::new)) {
        if let Some(program) = find(program, &path) {
            prefixes_of(&program, &path, &mut prefixes);
        }
    }
    prefixes.extend(std::env::var_os("VIRTUAL_ENV").map(PathBuf::from));
    prefixes.extend(["/usr", "/usr/local"].map(PathBuf::from));
    prefixes.extend(homes.iter().map(|home| home.join(".local")));

    let mut found: BTreeSet<PathBuf> = SYSTEM.iter().filter_map(|path| real_file(Path::new(path))).collect();
    for prefix in &prefixes {
        for folder in package_folders(prefix) {
            found.extend(PYTHON.iter().filter_map(|name| real_file(&folder.join(name))));
        }
    }
    found
}

fn find(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let program = Path::new(program);
    if program.components().count() > 1 {
        return program.exists().then(|| program.to_owned());
    }
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|candidate| executable(candidate))
}

/// Folders that may be the `sys.prefix` behind a program: of its interpreter, of each link on the way to it, and, for a
/// program frozen with its packages (aws-cli v2's own build), the program's folder.
fn prefixes_of(program: &Path, path: &OsStr, prefixes: &mut BTreeSet<PathBuf>) {
    let mut program = program.to_owned();
    // a script names an interpreter, which may be a script
    for _ in 0..4 {
        if let Some(real) = pyenv_shim(&program) {
            program = real;
        }
        for link in links(&program) {
            if let Some(folder) = link.parent() {
                prefixes.insert(folder.to_owned());
                prefixes.extend(folder.parent().map(Path::to_owned));
            }
        }
        match interpreter(&program, path) {
            Some(interpreter) => program = interpreter,
            None => return,
        }
    }
}

/// The program and what it links to, step by step: a virtual environment is known by the first, the packages of a
/// distribution by the last.
fn links(program: &Path) -> Vec<PathBuf> {
    let mut found = vec![program.to_owned()];
    while found.len() < 16 {
        let last = &found[found.len() - 1];
        let Ok(link) = std::fs::read_link(last) else { break };
        let next = last.parent().unwrap_or(Path::new("/")).join(link);
        found.push(next);
    }
    found.extend(std::fs::canonicalize(program));
    found
}

/// The program named by the first line of a script; `env` is followed.
fn interpreter(script: &Path, path: &OsStr) -> Option<PathBuf> {
    let mut start = [0; 256];
    let n = std::fs::File::open(script).ok()?.read(&mut start).ok()?;
    let line = start[..n].split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("#!")?;
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    if Path::new(first).file_name() == Some(OsStr::new("env")) {
        // options and settings of `env -S K=V python3`
        let program = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
        return find(OsStr::new(program), path);
    }
    Some(first.into())
}

/// pyenv's shims are scripts that choose a version when they run: `$PYENV_VERSION`, `.python-version` upwards from here,
/// pyenv's global `version`.
fn pyenv_shim(program: &Path) -> Option<PathBuf> {
    let shims = program.parent().filter(|folder| folder.ends_with("shims"))?;
    let root = shims.parent()?;
    let from_file = |file: PathBuf| {
        let text = std::fs::read_to_string(file).ok()?;
        text.split_ascii_whitespace().next().map(str::to_owned)
    };
    let version = std::env::var("PYENV_VERSION")
        .ok()
        .and_then(|versions| versions.split(':').next().map(str::to_owned))
        .filter(|version| !version.is_empty())
        .or_else(|| {
            let here = std::env::current_dir().ok()?;
            here.ancestors().find_map(|folder| from_file(folder.join(".python-version")))
        })
        .or_else(|| from_file(root.join("version")))?;
    let real = root.join("versions").join(version).join("bin").join(program.file_name()?);
    real.exists().then_some(real)
}

/// Folders of packages below a prefix; the prefix itself for frozen programs.
fn package_folders(prefix: &Path) -> Vec<PathBuf> {
    let mut found = vec![prefix.to_owned(), prefix.join("_internal"), prefix.join("dist")];
    for lib in ["lib", "lib64"] {
        let Ok(entries) = std::fs::read_dir(prefix.join(lib)) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with("python") {
                found.push(entry.path().join("site-packages"));
                found.push(entry.path().join("dist-packages"));
            }
        }
    }
    found
}

fn real_file(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn program(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn bundle(path: PathBuf) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        fs::canonicalize(path).unwrap()
    }

    #[test]
    fn a_scripts_interpreter_leads_to_its_packages() {
        let dir = tempfile::tempdir().unwrap();
        let venv = dir.path().join("venv");
        program(&dir.path().join("usr/bin/python3.11"), "ELF");
        fs::create_dir_all(venv.join("bin")).unwrap();
        symlink(dir.path().join("usr/bin/python3.11"), venv.join("bin/python3")).unwrap();
        let aws = venv.join("bin/aws");
        program(&aws, &format!("#!{}\nimport sys\n", venv.join("bin/python3").display()));
        let certifi = bundle(venv.join("lib/python3.11/site-packages/certifi/cacert.pem"));
        let botocore = bundle(dir.path().join("usr/lib/python3/dist-packages/botocore/cacert.pem"));

        let found = files(&[aws.into()], &[]);
        assert!(found.contains(&certifi), "the environment's, by the first link");
        assert!(found.contains(&botocore), "the distribution's, by the last");
    }

    #[test]
    fn env_is_followed_along_the_path() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("bin/python3"), "ELF");
        let script = dir.path().join("tool");
        program(&script, "#!/usr/bin/env -S A=1 python3 -u\n");
        let bin = dir.path().join("bin");
        assert_eq!(interpreter(&script, bin.as_os_str()), Some(bin.join("python3")));
        assert_eq!(interpreter(&dir.path().join("bin/python3"), bin.as_os_str()), None);
    }

    #[test]
    fn a_frozen_program_has_its_packages_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("v2/dist/aws"), "ELF");
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        symlink(dir.path().join("v2/dist/aws"), dir.path().join("bin/aws")).unwrap();
        let inside = bundle(dir.path().join("v2/dist/awscli/botocore/cacert.pem"));
        assert!(files(&[dir.path().join("bin/aws").into()], &[]).contains(&inside));
    }

    #[test]
    fn a_shim_of_pyenv_is_the_version_it_would_choose() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("shims/python3"), "#!/usr/bin/env bash\n");
        program(&dir.path().join("versions/3.12.1/bin/python3"), "ELF");
        fs::write(dir.path().join("version"), "3.12.1\n").unwrap();
        let real = pyenv_shim(&dir.path().join("shims/python3"));
        // a .python-version above the tests' own folder would win, as it does with pyenv
        assert!(real.is_none_or(|real| real.ends_with("versions/3.12.1/bin/python3")));
        assert_eq!(pyenv_shim(Path::new("/usr/bin/python3")), None);
    }
}
