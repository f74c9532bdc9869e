#![no_main]
#![allow(missing_docs, reason = "the body says what it shows")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::response_head(data));
