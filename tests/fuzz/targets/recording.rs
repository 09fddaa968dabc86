//! A recording of any bytes: read to its end, within bounds; what is read is written and read alike.
//!
//! Checksums would stop nearly all that a fuzzer makes up. So what it makes up are payloads as well: each is put in a
//! frame that is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sampler_common::recording::{Header, Reader, VERSION, Writer};

/// Snapshots that are looked at, so that one input does not take long.
const MOST: usize = 50;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    read(&framed(bytes));
});

fn read(bytes: &[u8]) {
    let Ok(reader) = Reader::open(bytes) else { return };
    let snapshots: Vec<_> = reader.take(MOST).filter_map(Result::ok).collect();
    let mut again = Vec::new();
    let mut writer = Writer::create(&mut again, Header::default()).expect("memory");
    for snapshot in &snapshots {
        writer.append(snapshot).expect("a snapshot that was read is within the bounds");
    }
    let reader = Reader::open(&*again).expect("the header that was written");
    let read: Vec<_> = reader.map(|snapshot| snapshot.expect("a whole recording")).collect();
    assert_eq!(read, snapshots);
}

/// Payloads with their lengths (u16) before them, the first a key frame's, as a recording.
fn framed(mut bytes: &[u8]) -> Vec<u8> {
    let mut file = [&b"LOADLINE"[..], &VERSION.to_le_bytes()].concat();
    frame(&mut file, *b"\xF5HDR", 0, 0, &[]);
    let (mut base, mut mark) = (0, *b"\xF5KEY");
    for sequence in 1.. {
        let Some((length, rest)) = bytes.split_first_chunk() else { break };
        let (payload, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        let packed = zstd::bulk::compress(payload, 1).expect("memory");
        base = frame(&mut file, mark, sequence, base, &packed);
        mark = *b"\xF5DIF";
        bytes = rest;
    }
    file
}

/// Appends a frame and returns the checksum of its payload.
fn frame(file: &mut Vec<u8>, mark: [u8; 4], sequence: u64, base: u32, payload: &[u8]) -> u32 {
    let checksum = crc32fast::hash(payload);
    let head = [
        &mark[..],
        &(payload.len() as u32).to_le_bytes(),
        &sequence.to_le_bytes(),
        &checksum.to_le_bytes(),
        &base.to_le_bytes(),
    ]
    .concat();
    file.extend(&head);
    file.extend(crc32fast::hash(&head).to_le_bytes());
    file.extend(payload);
    checksum
}
