#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| tao_fuzz::run("frames", raw));
