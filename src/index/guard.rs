//! What panics is treated as what is damaged.
//!
//! sled panics on some of the damage that it meets in its files. The files can be made again from the
//! log, so that is an error like others here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::StoreError;

/// Runs `work`; a panic in it is [`StoreError::Panicked`]. The caller gives up what `work` changed, or
/// can use it half changed.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    caught(work).unwrap_or_else(|text| Err(StoreError::Panicked(text)))
}

/// Runs `work`, or tells the text of its panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("no reason given").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_text() {
        let error = guarded::<()>(|| panic!("page {} is gone", 7)).unwrap_err();
        assert_eq!(error.to_string(), "the index panicked: page 7 is gone");
        assert_eq!(caught(|| panic!("short")), Err::<(), _>("short".to_owned()));
        assert_eq!(guarded(|| Ok(1)).unwrap(), 1);
    }
}
