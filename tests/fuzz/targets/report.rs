//! A report of any bytes: refused, or sent again as one message that says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sampler_common::report::Report;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut report) = Report::decode(bytes) else { return };
    report.part = sampler_common::report::Part::WHOLE;
    let [message] = &report.messages()[..] else { panic!("more than one message") };
    assert_eq!(Report::try_from(message.clone()).as_ref(), Ok(&report));
});
