use std::collections::HashMap;

use super::{
    v1::blkio_entry,
    v2::{io_entry, parse_pressure},
};

#[test]
fn lines_of_block_devices() {
    let names = HashMap::from([((8, 0), "/dev/sda".to_owned())]);
    let entry = blkio_entry("8:0 Read 4096", &names).unwrap();
    let fields = (entry.op.as_str(), entry.device.as_str(), entry.major, entry.minor, entry.value);
    assert_eq!(fields, ("Read", "/dev/sda", 8, 0, 4096));
    assert_eq!(blkio_entry("254:16 Write 1", &names).unwrap().device, "");
    assert!(blkio_entry("Total 4096", &names).is_none());
    let entry = io_entry("254:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6").unwrap();
    let fields = (entry.major, entry.minor, entry.rbytes, entry.wbytes, entry.rios, entry.wios);
    assert_eq!(fields, (254, 16, 1, 2, 3, 4));
}

#[test]
fn lines_of_pressure() {
    let text = "some avg10=1.50 avg60=0.00 avg300=0.25 total=42\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7\n";
    let stats = parse_pressure(text);
    assert_eq!((stats.some.avg10, stats.some.avg300, stats.some.total), (1.5, 0.25, 42));
    assert_eq!((stats.full.avg10, stats.full.total), (0.1, 7));
}
