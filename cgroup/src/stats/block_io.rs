//! What was read from and written to block devices.

use super::device;
use crate::process::ProcessCgroups;

/// Of v1: one kind of operation on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOperation {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`.
    pub operation: String,
    /// Bytes, or how many.
    pub value: u64,
}

impl DeviceOperation {
    /// Those in a file of the blkio controller.
    pub fn all(cgroups: &ProcessCgroups, file: &str) -> Vec<DeviceOperation> {
        let text = cgroups.read("blkio", file).unwrap_or_default();
        text.lines().filter_map(DeviceOperation::parse).collect()
    }

    /// `8:0 Read 4096`; the line of a sum has no device.
    fn parse(line: &str) -> Option<DeviceOperation> {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let operation = words.next()?.to_owned();
        Some(DeviceOperation { major, minor, operation, value: words.next()?.parse().ok()? })
    }
}

/// Of v2: one device; bytes, and operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceUse {
    pub major: u64,
    pub minor: u64,
    pub rbytes: u64,
    pub wbytes: u64,
    pub rios: u64,
    pub wios: u64,
}

impl DeviceUse {
    /// Those in `io.stat`.
    pub fn all(cgroups: &ProcessCgroups) -> Vec<DeviceUse> {
        cgroups.read("io", "io.stat").unwrap_or_default().lines().filter_map(DeviceUse::parse).collect()
    }

    /// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
    fn parse(line: &str) -> Option<DeviceUse> {
        let (numbers, rest) = line.split_once(' ')?;
        let (major, minor) = device(numbers)?;
        let mut entry = DeviceUse { major, minor, ..Default::default() };
        for (name, value) in rest.split_whitespace().filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match name {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_block_devices() {
        let read = DeviceOperation { major: 8, minor: 0, operation: "Read".into(), value: 4096 };
        assert_eq!(DeviceOperation::parse("8:0 Read 4096"), Some(read));
        assert_eq!(DeviceOperation::parse("Total 4096"), None);
        assert_eq!(DeviceOperation::parse("(unknown) Read 4096"), None);
        let entry = DeviceUse::parse("254:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6");
        assert_eq!(entry, Some(DeviceUse { major: 254, minor: 16, rbytes: 1, wbytes: 2, rios: 3, wios: 4 }));
        assert_eq!(DeviceUse::parse("(unknown) rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6"), None);
        // The kernel writes lines without numbers, too.
        assert_eq!(DeviceUse::parse("7:1 "), Some(DeviceUse { major: 7, minor: 1, ..Default::default() }));
    }
}
