use std::io::{Read, Seek, Write, pipe};
use std::os::unix::net::UnixStream;
use std::thread;

use super::*;

fn ram_with(len: u64) -> (GuestRam, Vec<u8>) {
    let ram = GuestRam::new(len).unwrap();
    let bytes: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
    ram.write(0, &bytes).unwrap();
    (ram, bytes)
}

#[test]
fn more_pieces_than_one_call_takes_go_in_order() {
    let (ram, bytes) = ram_with(1 << 20);
    let own: Vec<u8> = (0..50_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut expected = Vec::new();
    let mut list = Gather::new();
    for i in 0..3000_usize {
        let header = vec![i.to_le_bytes()[0]; i % 30];
        list.bytes(&header);
        expected.extend_from_slice(&header);
        let (offset, len) = (i * 300, 1 + i % 700);
        list.ram(&ram, offset as u64, len as u64).unwrap();
        expected.extend_from_slice(&bytes[offset..offset + len]);
        list.borrowed(&own[i..i * 10]);
        expected.extend_from_slice(&own[i..i * 10]);
    }
    assert_eq!(list.left(), expected.len() as u64);
    // A socket takes a part of a piece at a time.
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let got = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        list.write_all_to(&writer).unwrap();
        drop(writer);
        reader.join().unwrap()
    });
    assert_eq!(list.left(), 0);
    assert!(got == expected);

    let mut again = list.recycle();
    again.bytes(b"x");
    again.ram(&ram, 1, 2).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    again.write_all_to(&file).unwrap();
    assert_eq!(again.write_to(&file).unwrap(), 0);
    file.rewind().unwrap();
    let mut got = Vec::new();
    file.read_to_end(&mut got).unwrap();
    assert_eq!(got, [b'x', 1, 2]);
}

#[test]
fn neighbours_become_one_piece() {
    let (ram, _) = ram_with(1 << 20);
    let mut list = Gather::new();
    for page in 0..16 {
        list.ram(&ram, page * 4096, 4096).unwrap();
    }
    list.ram(&ram, 0, 0).unwrap();
    assert_eq!(list.pieces.list.len(), 1);
    list.ram(&ram, 17 * 4096, 4096).unwrap();
    assert_eq!(list.pieces.list.len(), 2);
}

#[test]
fn a_list_that_was_written_half_goes_on_growing() {
    let (ram, bytes) = ram_with(1 << 20);
    let (mut reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut list = Gather::new();
    let mut got = Vec::new();
    let mut expected = Vec::new();
    for i in 0..64 {
        // Adjacent to the last piece, which may be written, half written or whole.
        list.ram(&ram, i * 16384, 16384).unwrap();
        let range = usize::try_from(i * 16384).unwrap();
        expected.extend_from_slice(&bytes[range..range + 16384]);
        let mut full = false;
        while list.left() > 0 && !full {
            full = match list.write_to(&writer) {
                Ok(_) => false,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    true
                }
            };
        }
        if full {
            let mut some = vec![0; 40_000];
            let n = reader.read(&mut some).unwrap();
            got.extend_from_slice(&some[..n]);
        }
    }
    writer.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            list.write_all_to(&writer).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        reader.read_to_end(&mut got).unwrap();
    });
    assert!(got == expected);
}

#[test]
fn input_goes_where_it_belongs() {
    let (ram, _) = ram_with(1 << 20);
    let content: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 241) as u8).collect();
    let (reader, mut writer) = UnixStream::pair().unwrap();
    let mut buffers = vec![vec![0; 77]; 2000];
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&content).unwrap());
        let mut list = Scatter::new();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            list.buffer(buffer);
            list.ram(&ram, 400 * i as u64, 400).unwrap();
        }
        list.read_all_from(&reader).unwrap();
        assert_eq!(list.left(), 0);
    });
    for (i, record) in content.chunks_exact(477).take(2000).enumerate() {
        assert_eq!(buffers[i], record[..77]);
        let mut got = [0; 400];
        ram.read(400 * i as u64, &mut got).unwrap();
        assert_eq!(got, record[77..]);
    }
}

#[test]
fn refusals() {
    let (ram, _) = ram_with(4096);
    let (reader, mut writer) = pipe().unwrap();
    let mut list = Scatter::new();
    assert!(list.ram(&ram, 4096, 1).is_err());
    list.ram(&ram, 0, 100).unwrap();
    writer.write_all(&[1; 60]).unwrap();
    drop(writer);
    let error = list.read_all_from(&reader).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(list.left(), 40);
    assert_eq!(ram.load::<u8>(59), Some(1));

    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let mut list = Gather::new();
    assert!(list.ram(&ram, 0, 4097).is_err());
    list.ram(&ram, 0, 100).unwrap();
    let error = list.write_all_to(&writer).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(list.left(), 100);
}
