//! The disk that cloud-init's data source NoCloud reads: a small FAT file system with the label CIDATA.
//! Made in memory; the same documents make the same bytes.

use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Room for the tables and a folder; contents come on top, in whole clusters.
const LEN_MIN: usize = 512 << 10;

/// Makes the disk of files by name.
///
/// # Errors
/// None for names and lengths that the callers have.
pub fn disk(files: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    let contents: usize = files.iter().map(|(_, text)| text.len()).sum();
    let len = (LEN_MIN + 2 * contents).next_multiple_of(LEN_MIN);
    let mut bytes = Cursor::new(vec![0; len]);
    let options = FormatVolumeOptions::new().volume_label(*b"CIDATA     ");
    fatfs::format_volume(&mut bytes, options)?;
    {
        let volume = FileSystem::new(&mut bytes, FsOptions::new())?;
        for (name, text) in files {
            volume.root_dir().create_file(name)?.write_all(text.as_bytes())?;
        }
        volume.unmount()?;
    }
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_put_in_can_be_read_and_has_its_label() {
        let long = "x".repeat(200 << 10);
        let files = [("user-data", long.as_str()), ("meta-data", "instance-id: a\n")];
        let bytes = disk(&files).unwrap();
        assert_eq!(disk(&files).unwrap(), bytes);
        let volume = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
        for (name, text) in files {
            let mut found = String::new();
            volume.root_dir().open_file(name).unwrap().read_to_string(&mut found).unwrap();
            assert_eq!(found, text);
        }
    }
}
