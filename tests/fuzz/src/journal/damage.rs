//! What devices, crashes and people do to files.

use super::written::{BLOCK, Files, HEAD, HEADER_FIELDS, Journal, RECORD_FIELDS, seal};
use arbitrary::{Result, Unstructured};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The last write did not reach the disk whole, and nothing of it had been confirmed.
    Torn,
    /// Bytes of a file changed, lost or put elsewhere, from here on.
    Random(usize),
    /// Fields were changed and the checksum with them.
    Forged,
}

/// Damages a file.
pub fn inflict(
    bytes: &mut Unstructured<'_>,
    journal: &Journal,
    files: &mut Files,
) -> Result<Damage> {
    if files.is_empty() {
        return Ok(Damage::Random(0));
    }
    let chosen = bytes.choose_index(files.len())?;
    let (_, file) = &mut files[chosen];
    let from = bytes.int_in_range(0..=file.len().saturating_sub(1))?;
    let to = (from + bytes.int_in_range(1..=BLOCK)?).min(file.len());
    match bytes.int_in_range(0..=8_u8)? {
        0 | 1 => return tear(bytes, journal, files),
        2 => return forge(bytes, journal, files),
        3 => drop(files.remove(chosen)),
        4 => file.truncate(from),
        5 => file[from..to].fill(0),
        6 => {
            if let Some(byte) = file.get_mut(from) {
                *byte ^= 1 << bytes.int_in_range(0..=7)?;
            }
        }
        7 => {
            // A block that was written to the wrong place.
            let target = bytes.int_in_range(0..=file.len() / 8)? * 8;
            let length = (to - from).min(file.len() - target);
            file.copy_within(from..from + length, target);
        }
        _ => {
            let noise = bytes.bytes(bytes.len().min(8))?.to_vec();
            let at = from.min(file.len().saturating_sub(noise.len()));
            let end = file.len().min(at + noise.len());
            let length = end - at;
            file[at..end].copy_from_slice(&noise[..length]);
        }
    }
    Ok(Damage::Random(from))
}

/// Loses the end of the last write: of its records the first ones may have arrived.
fn tear(bytes: &mut Unstructured<'_>, journal: &Journal, files: &mut Files) -> Result<Damage> {
    let last = journal.placed.last().expect("a journal has records");
    let Some((_, file)) = files.iter_mut().find(|(name, _)| *name == last.name) else {
        return Ok(Damage::Random(0));
    };
    let from = last.at + bytes.int_in_range(0..=last.bytes.len() - 1)?;
    if from >= file.len() {
        return Ok(Damage::Torn);
    }
    if bytes.arbitrary()? {
        file.truncate(from);
    } else {
        file[from..].fill(0);
    }
    Ok(Damage::Torn)
}

/// Changes a field of a record or of a segment's header, and the checksum with it.
fn forge(bytes: &mut Unstructured<'_>, journal: &Journal, files: &mut Files) -> Result<Damage> {
    let placed = &journal.placed[bytes.choose_index(journal.placed.len())?];
    let header = bytes.ratio(1, 3)?;
    let Some((_, file)) = files.iter_mut().find(|(name, _)| *name == placed.name) else {
        return Ok(Damage::Random(0));
    };
    let (start, length) = if header { (0, BLOCK) } else { (placed.at, placed.bytes.len()) };
    let Some(part) = file.get_mut(start..start + length) else { return Ok(Damage::Random(0)) };
    let (at, size) = if header {
        *bytes.choose(&HEADER_FIELDS)?
    } else if bytes.arbitrary()? && length > HEAD {
        (bytes.int_in_range(HEAD..=length - 1)?, 1)
    } else {
        *bytes.choose(&RECORD_FIELDS)?
    };
    let value: u64 = match bytes.int_in_range(0..=3_u8)? {
        0 => 0,
        1 => u64::MAX,
        2 => bytes.int_in_range(0..=40)?,
        _ => bytes.arbitrary()?,
    };
    let size = size.min(8);
    part[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    seal(part);
    Ok(Damage::Forged)
}
