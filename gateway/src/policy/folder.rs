//! A policy folder on disk: read whole and within limits, and checked without a gateway.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use serde::Serialize;

use super::{
    PolicyError, PolicyFile, PolicySet,
    fault::{Fault, Problem},
    limits,
    load::Place,
};

/// Folders above a file in a policy folder: `agency/<domain>/<name>`.
const DEPTH: usize = 3;

/// What `policy check` says of a folder without a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The set's hash, as decisions name it.
    pub hash: String,
    /// The scheme's hash, as domains compare it.
    pub scheme_hash: String,
    /// The layers that exist.
    pub layers: Vec<String>,
    /// How many policies there are.
    pub policies: usize,
    /// How many tests passed.
    pub tests: usize,
}

/// Checks a policy folder as `policy load` would, and changes nothing.
///
/// # Errors
/// Every fault that was found.
pub fn check(folder: &Path) -> Result<CheckReport, PolicyError> {
    let set = PolicySet::load(&read_folder(folder)?)?;
    Ok(CheckReport {
        hash: set.hash().to_string(),
        scheme_hash: set.scheme_hash().to_string(),
        layers: set.layers().map(ToString::to_string).collect(),
        policies: set.policies(),
        tests: set.tests(),
    })
}

/// Reads a policy folder, in the order of paths. Hidden files and `README.md` are no part of it; anything
/// else that a policy set has no place for is a fault.
///
/// # Errors
/// What cannot be read, is too large or too much, is not UTF-8, leads out of the folder, or has no place.
pub fn read_folder(folder: &Path) -> Result<Vec<PolicyFile>, PolicyError> {
    let root = folder.canonicalize().map_err(|error| unreadable(&folder.to_string_lossy(), &error))?;
    let mut files = Vec::new();
    read_into(&root, &root, "", &mut files, &mut { limits::SET_BYTES })?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_into(
    root: &Path,
    folder: &Path,
    prefix: &str,
    files: &mut Vec<PolicyFile>,
    bytes_left: &mut usize,
) -> Result<(), PolicyError> {
    for entry in fs::read_dir(folder).map_err(|error| unreadable(prefix, &error))? {
        let entry = entry.map_err(|error| unreadable(prefix, &error))?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_string_lossy());
        let Some(name) = name.to_str() else { return Err(Problem::UnknownPath.in_file(&path).into()) };
        if name.starts_with('.') || name == "README.md" {
            continue;
        }
        let target = entry.path().canonicalize().map_err(|error| unreadable(&path, &error))?;
        if !target.starts_with(root) {
            return Err(Problem::LinksOut.in_file(&path).into());
        }
        let metadata = target.metadata().map_err(|error| unreadable(&path, &error))?;
        if metadata.is_dir() && prefix.matches('/').count() < DEPTH {
            read_into(root, &target, &format!("{path}/"), files, bytes_left)?;
        } else if metadata.is_file() && Place::of(&path).is_some() {
            if files.len() == limits::FILES {
                return Err(Problem::TooManyFiles.in_set().into());
            }
            let text = read_file(&target, &path)?;
            *bytes_left = bytes_left.checked_sub(text.len()).ok_or(Problem::SetTooLarge.in_set())?;
            files.push(PolicyFile { path, text });
        } else {
            return Err(Problem::UnknownPath.in_file(&path).into());
        }
    }
    Ok(())
}

fn read_file(target: &Path, path: &str) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    File::open(target)
        .and_then(|file| file.take(limits::FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() > limits::FILE_BYTES {
        return Err(Problem::FileTooLarge.in_file(path));
    }
    String::from_utf8(bytes).map_err(|_| Problem::NotUtf8.in_file(path))
}

fn unreadable(path: &str, error: &io::Error) -> Fault {
    Problem::Unreadable(error.to_string()).in_file(path)
}
