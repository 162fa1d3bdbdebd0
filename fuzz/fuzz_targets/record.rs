//! Any octets for the decoders of what the report log holds: no panic, and what they read they write
//! again to the same meaning.
#![no_main]

use clawback::index::{Kept, decode_spilled, encode_spilled};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(kept) = Kept::decode(octets) {
        let again = Kept::decode(&kept.encode()).expect("what was written is read");
        assert_eq!(again.encode(), kept.encode());
    }
    if let Ok(recipients) = decode_spilled(octets) {
        let again = decode_spilled(&encode_spilled(&recipients)).expect("what was written is read");
        assert_eq!(again, recipients);
    }
});
