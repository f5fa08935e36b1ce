//! What reads keep in memory, and that nobody's event is written over.

use eventbus_core::testing::event;
use eventbus_core::{Batch, Durability};
use rustix::io::Errno;

use std::sync::Weak;

use super::*;
use crate::bytes::batch;
use crate::bytes::segment::CONTENT_AT;
use crate::disk::FaultyDisk;
use crate::log::Machines;
use crate::segments::{Beginning, Spare};
use crate::stepped::machines;

/// Writes an event of that size, in a batch of its own; says where it is.
fn write(machines: &mut Machines, number: usize, size: usize) -> Spot {
    let shared = machines.shared.clone();
    let before = shared.segments.active().unwrap();
    let (position, end) = (shared.next_position(), before.facts().end);
    let batch = Batch { events: vec![event("a", data(number, size))], atomic: false };
    let _answers = shared.begin_append(batch, Durability::Written).unwrap();
    machines.writer.step(shared.now());
    assert_eq!(shared.next_position(), position.next());
    let active = shared.segments.active().unwrap();
    let at = if active.number == before.number { end } else { CONTENT_AT };
    Spot { position, place: index::place(active.number, at + batch::BYTES as u64) }
}

fn data(number: usize, size: usize) -> String {
    let mut data = number.to_string();
    data.extend(std::iter::repeat_n('x', size));
    data
}

fn assert_bounded(reader: &Reader) {
    let kept = reader.kept_locked();
    assert!(kept.len() <= limits::READS_KEPT, "{} reads are kept", kept.len());
    let longest = kept.iter().map(|chunk| chunk.bytes.len()).max();
    assert!(longest <= Some(limits::READ_BYTES), "one of {longest:?} bytes");
}

#[test]
fn every_event_is_read_whatever_was_read_before_and_held_ones_stay() {
    let mut machines = machines(&FaultyDisk::new(1 << 30));
    let sizes = [100, 1_000, 20_000, 60_000, 130_000, 1_000_000, 300, 100_000];
    let sizes = || sizes.iter().copied().cycle().take(120).enumerate();
    let spots: Vec<Spot> =
        sizes().map(|(number, size)| write(&mut machines, number, size)).collect();
    let reader = Reader::default();
    let mut held = Vec::new();
    for more_follow in [true, false, true] {
        for (spot, (number, size)) in spots.iter().zip(sizes()) {
            let stored = reader.read(&machines.shared, *spot, more_follow).unwrap();
            assert_eq!(stored.event.payload, data(number, size).as_bytes());
            assert_bounded(&reader);
            if number % 7 == 0 {
                held.push((number, size, stored));
            }
        }
    }
    for (number, size, stored) in held {
        assert_eq!(stored.event.payload, data(number, size).as_bytes());
    }
    for chunk in reader.kept_locked().drain(..) {
        let memory = chunk.bytes.try_into_mut().expect("nobody holds an event in it");
        assert!(memory.capacity() <= limits::READ_BYTES, "{} bytes", memory.capacity());
    }
}

/// An error at the last sector of an event that is longer than a scattered read.
#[test]
fn an_event_that_cannot_be_read_costs_none_around_it_and_none_where_that_may_pass() {
    const BAD: usize = 3;
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = machines(&disk);
    let sizes = || [300, 1_000, 20_000, 60_000, 300, 60_000, 130_000].into_iter().enumerate();
    let spots: Vec<Spot> =
        sizes().map(|(number, size)| write(&mut machines, number, size)).collect();
    let end = index::segment_and_byte(spots[BAD + 1].place).1 - batch::BYTES as u64;
    for (error, more_follow) in
        [(Errno::IO, true), (Errno::IO, false), (Errno::NOMEM, true), (Errno::NOMEM, false)]
    {
        disk.spoil("segment-000001", end - 512..end, error);
        let reader = Reader::default();
        for (spot, (number, size)) in spots.iter().zip(sizes()) {
            let read = reader.read(&machines.shared, *spot, more_follow);
            match read.map(|stored| stored.event.payload.clone()) {
                Err(ReadError::Damaged(_)) => assert_eq!((number, error), (BAD, Errno::IO)),
                Err(ReadError::Io(_)) => assert_eq!((number, error), (BAD, Errno::NOMEM)),
                read => assert_eq!(read.unwrap(), data(number, size).as_bytes()),
            }
        }
        disk.heal();
        let stored = reader.read(&machines.shared, spots[BAD], more_follow).unwrap();
        assert_eq!(stored.event.payload, data(BAD, 60_000).as_bytes());
    }
}

#[test]
fn a_read_uses_the_memory_of_the_oldest_unless_an_event_lies_in_it() {
    let mut machines = machines(&FaultyDisk::new(1 << 30));
    let far = limits::READ_BYTES - 20_000;
    let spots: Vec<Spot> =
        (0..3 * limits::READS_KEPT).map(|number| write(&mut machines, number, far)).collect();
    let reader = Reader::default();
    let read = |spot: &Spot| reader.read(&machines.shared, *spot, true).unwrap();
    let memory = |chunk: Option<&Chunk>| chunk.map(|chunk| chunk.bytes.as_ptr());
    let oldest = || memory(reader.kept_locked().front());
    let youngest = || memory(reader.kept_locked().back());
    let (first, others) = spots.split_first().unwrap();
    let held = read(first);
    let mut others = others.iter();
    for spot in others.by_ref().take(limits::READS_KEPT - 1) {
        read(spot);
    }
    let taken = oldest();
    read(others.next().unwrap());
    assert_ne!(youngest(), taken, "somebody holds an event in it");
    for spot in others {
        let free = oldest();
        read(spot);
        assert_eq!(youngest(), free);
        assert_bounded(&reader);
    }
    assert_eq!(held.event.payload, data(0, far).as_bytes());
}

/// A file whose segment is retired, and which another segment is written into, when it is read.
struct UsedAgain(Weak<Shared>);

impl DiskFile for UsedAgain {
    fn size(&self) -> io::Result<u64> {
        Ok(1 << 20)
    }

    fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<usize> {
        self.0.upgrade().unwrap().segments.retire(1);
        Ok(buffer.len())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_read_of_a_file_that_is_used_again_is_no_damage() {
    let machines = machines(&FaultyDisk::new(1 << 30));
    let shared = &machines.shared;
    let file = Arc::new(UsedAgain(Arc::downgrade(shared)));
    let spare = Spare { file_number: 1, file, size: 1 << 20, generation: 1 };
    let (base, before) = (Position(1), Position(0));
    let beginning = Beginning { number: 1, base, before, epoch: 1, size: 1 << 20 };
    let segment = Arc::new(Segment::begun(spare, beginning, 0));
    shared.segments.adopt(vec![segment], Vec::new(), 1);
    let spot = Spot { position: base, place: index::place(1, CONTENT_AT) };
    let read = shared.reader.read(shared, spot, false);
    assert!(matches!(read, Err(ReadError::Gone)), "{read:?}");
}
