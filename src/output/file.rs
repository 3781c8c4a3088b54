//! Output files: complete or not at all, and never two outputs mixed.
//!
//! | target | what happens |
//! |---|---|
//! | `-` | standard output |
//! | a new name | a temporary file beside it, synced, then linked to the name; a file that appeared meanwhile stays |
//! | a regular file | a temporary file beside it with its mode and owner, synced, then renamed over it |
//! | a file with several names, or whose owner or directory this user cannot write | as before, but the complete content is copied into the file |
//! | a device, a pipe, a file below /proc | written through, as a redirection of the shell does |
//! | a symbolic link | what it points to, by the same rules; the link stays |
//!
//! An existing file is locked meanwhile; a file that another program changed is not replaced.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::{OutputError, STANDARD_OUTPUT};
use crate::limits::{OUTPUT_LINKS_MAX, OUTPUT_TEMPORARY_NAMES_MAX};

/// An output file that is replaced as a whole. Dropped before [`OutputFile::finish`], it leaves a regular file as it was.
pub(crate) struct OutputFile {
    /// For messages.
    place: String,
    out: BufWriter<File>,
    completion: OutputCompletion,
}

/// What [`OutputFile::finish`] does.
enum OutputCompletion {
    /// The output is where it belongs.
    WrittenThrough,
    /// The temporary file gets a name that did not exist.
    Link { temporary: TemporaryFile, target: PathBuf },
    /// The temporary file takes the place of this one.
    Replace { temporary: TemporaryFile, target: PathBuf, existing: ExistingFile },
    /// The temporary file is copied into this one.
    CopyInto { temporary: TemporaryFile, target: PathBuf, existing: ExistingFile },
}

impl OutputFile {
    pub(crate) fn open(path: &Path) -> Result<Self, OutputError> {
        if path == Path::new("-") {
            let copy = io::stdout().as_fd().try_clone_to_owned().map(File::from);
            let copy = copy.map_err(|error| OutputError::of(STANDARD_OUTPUT, error))?;
            return Ok(Self::written_through(STANDARD_OUTPUT.to_owned(), copy));
        }
        let place = path.display().to_string();
        let fail = |error| OutputError::of(&place, error);
        let target = resolve(path).map_err(fail)?;
        let Some(target) = target else {
            let open = OpenOptions::new().append(true).open(path);
            return Ok(Self::written_through(place.clone(), open.map_err(fail)?));
        };
        match fs::metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (temporary, out) = TemporaryFile::beside(&target, 0o666).map_err(fail)?;
                let completion = OutputCompletion::Link { temporary, target };
                Ok(Self { place, out: BufWriter::new(out), completion })
            }
            Err(error) => Err(fail(error)),
            Ok(found) if found.is_dir() => {
                Err(OutputError::Refused(format!("{place} is a directory; name a file in it")))
            }
            Ok(found) if found.is_file() => Self::over_file(place, target),
            Ok(_) => {
                let open = OpenOptions::new().write(true).open(&target);
                Ok(Self::written_through(place.clone(), open.map_err(fail)?))
            }
        }
    }

    fn written_through(place: String, file: File) -> Self {
        Self { place, out: BufWriter::new(file), completion: OutputCompletion::WrittenThrough }
    }

    fn over_file(place: String, target: PathBuf) -> Result<Self, OutputError> {
        let fail = |error| OutputError::of(&place, error);
        let existing = ExistingFile::lock(&target, &place)?;
        let is_alone = existing.metadata.nlink() == 1;
        let beside = TemporaryFile::beside(&target, 0o600);
        let (completion, out) = match beside {
            Ok((temporary, out)) if is_alone && existing.give_owner_to(&out).is_ok() => {
                (OutputCompletion::Replace { temporary, target, existing }, out)
            }
            Ok((temporary, out)) => {
                (OutputCompletion::CopyInto { temporary, target, existing }, out)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let elsewhere = std::env::temp_dir().join("inventory-api");
                let (temporary, out) = TemporaryFile::beside(&elsewhere, 0o600).map_err(fail)?;
                (OutputCompletion::CopyInto { temporary, target, existing }, out)
            }
            Err(error) => return Err(fail(error)),
        };
        Ok(Self { place, out: BufWriter::new(out), completion })
    }

    /// Whether there is something to remove if the output is not completed.
    pub(crate) fn has_temporary_file(&self) -> bool {
        !matches!(self.completion, OutputCompletion::WrittenThrough)
    }

    /// The error of a write to this file.
    pub(crate) fn error(&self, error: io::Error) -> OutputError {
        OutputError::of(&self.place, error)
    }

    /// Completes the output.
    pub(crate) fn finish(self) -> Result<(), OutputError> {
        let place = self.place;
        let fail = |error| OutputError::of(&place, error);
        let changed = || {
            OutputError::Refused(format!(
                "{place} was written by another program at the same time and was not replaced: run the command \
                 again, or choose another name"
            ))
        };
        let mut file = self.out.into_inner().map_err(|error| fail(error.into_error()))?;
        if matches!(self.completion, OutputCompletion::WrittenThrough) {
            return Ok(());
        }
        file.sync_all().map_err(fail)?;
        match self.completion {
            OutputCompletion::WrittenThrough => Ok(()),
            OutputCompletion::Link { temporary, target } => {
                match fs::hard_link(&temporary.path, &target) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(changed());
                    }
                    // A file system without hard links.
                    Err(_) => temporary.rename(&target).map_err(fail)?,
                }
                sync_directory(&target);
                Ok(())
            }
            OutputCompletion::Replace { temporary, target, existing } => {
                if !existing.is_unchanged(&target) {
                    return Err(changed());
                }
                let mode = existing.metadata.permissions().mode();
                let permissions = fs::Permissions::from_mode(mode & 0o7777);
                file.set_permissions(permissions).map_err(fail)?;
                temporary.rename(&target).map_err(fail)?;
                sync_directory(&target);
                Ok(())
            }
            OutputCompletion::CopyInto { temporary, target, existing } => {
                if !existing.is_unchanged(&target) {
                    return Err(changed());
                }
                let copied = existing.copy_from(&mut file);
                drop(temporary);
                copied.map_err(fail)
            }
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Follows symbolic links to a name that is none. `None` for a link below /proc: its target is an open file, which
/// need not have a name.
fn resolve(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..OUTPUT_LINKS_MAX {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(Some(path)),
        }
        let directory = directory_of(&path);
        if directory.canonicalize()?.starts_with("/proc") {
            return Ok(None);
        }
        path = directory.join(fs::read_link(&path)?);
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes a new name durable. Not every file system can; the content is synced in any case.
fn sync_directory(path: &Path) {
    let _ = File::open(directory_of(path)).and_then(|directory| directory.sync_all());
}

/// A file that exists, open for writing and locked.
struct ExistingFile {
    file: File,
    metadata: Metadata,
}

impl ExistingFile {
    fn lock(path: &Path, place: &str) -> Result<Self, OutputError> {
        let fail = |error| OutputError::of(place, error);
        let file = OpenOptions::new().write(true).open(path).map_err(fail)?;
        // A file system without locks: the comparison before the replacement is left.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(OutputError::Refused(format!(
                "{place} is being written by another command: wait for its end, or choose another name"
            )));
        }
        let metadata = file.metadata().map_err(fail)?;
        Ok(Self { file, metadata })
    }

    fn give_owner_to(&self, file: &File) -> io::Result<()> {
        let (own, other) = (file.metadata()?, &self.metadata);
        if (own.uid(), own.gid()) == (other.uid(), other.gid()) {
            return Ok(());
        }
        fchown(file, Some(other.uid()), Some(other.gid()))
    }

    /// Whether `path` still is this file with the content that it had.
    fn is_unchanged(&self, path: &Path) -> bool {
        let identity = |of: &Metadata| (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec());
        fs::metadata(path).is_ok_and(|now| identity(&now) == identity(&self.metadata))
    }

    fn copy_from(mut self, content: &mut (impl Read + Seek)) -> io::Result<()> {
        content.rewind()?;
        self.file.set_len(0)?;
        io::copy(content, &mut self.file)?;
        self.file.sync_all()
    }
}

/// Removed when dropped.
struct TemporaryFile {
    path: PathBuf,
    is_renamed: bool,
}

impl TemporaryFile {
    /// A new file in the directory of `target`. No other process has its name.
    fn beside(target: &Path, mode: u32) -> io::Result<(Self, File)> {
        let (directory, process) = (directory_of(target), std::process::id());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        for number in 0..OUTPUT_TEMPORARY_NAMES_MAX {
            let path = directory.join(format!(".inventory-api-{process}-{number}.part"));
            match options.open(&path) {
                Ok(file) => return Ok((Self { path, is_renamed: false }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EEXIST))
    }

    fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.is_renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}
