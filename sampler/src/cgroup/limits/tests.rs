//! What is refused, which limit is the tightest, and shares as weights.

use super::*;
use proptest::prelude::*;
use std::fs;

fn quota(quota_us: u64, period_us: u64) -> Quota {
    Quota { quota_us, period_us }
}

fn cpu(quota_us: u64, period_us: u64) -> Level {
    Level { cpu: Some(quota(quota_us, period_us)), ..Level::default() }
}

fn memory(max: Option<u64>, high: Option<u64>) -> Level {
    Level { memory_max_bytes: max, memory_high_bytes: high, ..Level::default() }
}

#[test]
fn a_limit_is_a_quota_and_a_period() {
    assert_eq!(Quota::parse("60000 100000\n"), Ok(Some(quota(60_000, 100_000))));
    assert_eq!(Quota::parse("max 100000\n"), Ok(None));
    assert_eq!(Quota::parse_v1("60000\n", "100000\n"), Ok(Some(quota(60_000, 100_000))));
    assert_eq!(Quota::parse_v1("-1\n", "100000\n"), Ok(None));
}

#[test]
fn a_limit_that_is_none_is_refused_by_file_and_field() {
    let not_a_number = Problem::not_a_number;
    let refused = |text| {
        let Malformed { file, field, problem } = Quota::parse(text).unwrap_err();
        assert_eq!(file, CPU_MAX);
        (field, problem)
    };
    assert_eq!(refused(""), ("period", Problem::CutOff));
    assert_eq!(refused("max 1000"), ("period", Problem::CutOff));
    assert_eq!(refused("max\n"), ("period", Problem::Missing));
    assert_eq!(refused("max 0\n"), ("period", not_a_number("0")));
    assert_eq!(refused("max max\n"), ("period", not_a_number("max")));
    assert_eq!(refused("-1 100000\n"), ("quota", not_a_number("-1")));
    assert_eq!(refused("0 100000\n"), ("quota", not_a_number("0")));
    assert_eq!(refused("MAX 100000\n"), ("quota", not_a_number("MAX")));
    assert_eq!(refused("1 2 3\n"), ("period", not_a_number("2 3")));
    let refused = |quota, period| {
        let Malformed { file, problem, .. } = Quota::parse_v1(quota, period).unwrap_err();
        (file, problem)
    };
    assert_eq!(refused("-2\n", "100000\n"), (CFS_QUOTA, not_a_number("-2")));
    assert_eq!(refused("-1", "100000\n"), (CFS_QUOTA, Problem::CutOff));
    assert_eq!(refused("-1\n", "0\n"), (CFS_PERIOD, not_a_number("0")));
    assert_eq!(refused("1000\n", ""), (CFS_PERIOD, Problem::CutOff));
}

#[test]
fn weights_and_bytes_that_cannot_be_are_refused() {
    assert_eq!(parse_weight("79\n"), Ok(79));
    assert_eq!(parse_weight("0\n"), Ok(1));
    assert_eq!(parse_weight("10001\n").unwrap_err().problem, Problem::not_a_number("10001"));
    assert_eq!(parse_bytes(MEMORY_MAX, "max\n"), Ok(None));
    assert_eq!(parse_bytes(MEMORY_MAX, "0\n"), Ok(Some(0)));
    assert_eq!(parse_bytes(MEMORY_HIGH, "max").unwrap_err().problem, Problem::CutOff);
    assert_eq!(parse_bytes(MEMORY_HIGH, "-1\n").unwrap_err().file, MEMORY_HIGH);
}

#[test]
fn v1_has_its_own_word_for_unlimited_at_every_page_size() {
    for shift in [12, 14, 16] {
        let unlimited = (i64::MAX as u64 >> shift) << shift;
        assert_eq!(parse_v1_bytes(&format!("{unlimited}\n")), Ok(None), "pages of {} bytes", 1 << shift);
    }
    assert_eq!(parse_v1_bytes("9223372036854771712\n"), Ok(None));
    assert_eq!(parse_v1_bytes("536870912\n"), Ok(Some(536_870_912)));
    assert_eq!(parse_v1_bytes("x\n").unwrap_err().file, MEMORY_LIMIT);
}

#[test]
fn shares_are_weights_as_runtimes_convert_them() {
    // The least, the default, the greatest; the example of runc's issue 4896; beyond both ends.
    let pairs = [(2, 1), (1024, 100), (262_144, 10_000), (2000, 170), (0, 1), (u64::MAX, 10_000)];
    for (shares, weight) in pairs {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
}

#[test]
fn the_tightest_limit_is_in_force_and_says_whose_it_is() {
    let limit = |own: &Level, above: &[Level]| in_force(own, None, above).cpu;
    let of = |quota: Quota, of| Some(CpuLimit { quota_us: quota.quota_us, period_us: quota.period_us, of });
    let none = Level::default();
    assert_eq!(limit(&none, &[none, none]), None);
    assert_eq!(limit(&cpu(50, 100), &[none]), of(quota(50, 100), LimitOf::Own));
    assert_eq!(limit(&none, &[cpu(50, 100)]), of(quota(50, 100), LimitOf::Ancestor));
    // Periods differ: 0.4 of a core is less than half of one.
    assert_eq!(limit(&cpu(50, 100), &[none, cpu(400, 1000)]), of(quota(400, 1000), LimitOf::Ancestor));
    assert_eq!(limit(&cpu(40, 100), &[cpu(500, 1000)]), of(quota(40, 100), LimitOf::Own));
    // The pod's limit is that of its only container.
    assert_eq!(limit(&cpu(50, 100), &[cpu(500, 1000)]), of(quota(50, 100), LimitOf::Own));
    let vast = u64::MAX;
    assert_eq!(limit(&cpu(vast, 1), &[cpu(vast, 2)]), of(quota(vast, 2), LimitOf::Ancestor));
}

#[test]
fn the_tightest_memory_limits_are_in_force() {
    let own = memory(Some(300), None);
    let limits = in_force(&own, Some(79), &[memory(Some(200), Some(150)), memory(None, Some(100))]);
    assert_eq!(
        limits,
        Limits { cpu: None, cpu_weight: Some(79), memory_max_bytes: Some(200), memory_high_bytes: Some(100) }
    );
}

#[test]
fn limits_are_read_from_a_directory_and_what_is_not_there_is_no_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (at, path) = (|file: &str| directory.path().join(file), directory.path());
    for format in [Format::V1, Format::V2] {
        assert_eq!(read_quota(path, format).unwrap(), None);
        assert_eq!(read_weight(path, format).unwrap(), None);
        assert_eq!(read_memory(path, format).unwrap(), (None, None));
    }
    fs::write(at("cpu.max"), "50000 100000\n").unwrap();
    fs::write(at("cpu.weight"), "39\n").unwrap();
    fs::write(at("memory.max"), "1048576\n").unwrap();
    fs::write(at("memory.high"), "max\n").unwrap();
    fs::write(at("cpu.cfs_quota_us"), "20000\n").unwrap();
    fs::write(at("cpu.cfs_period_us"), "10000\n").unwrap();
    fs::write(at("cpu.shares"), "1024\n").unwrap();
    fs::write(at("memory.limit_in_bytes"), "4096\n").unwrap();
    assert_eq!(read_quota(path, Format::V2).unwrap(), Some(quota(50_000, 100_000)));
    assert_eq!(read_quota(path, Format::V1).unwrap(), Some(quota(20_000, 10_000)));
    assert_eq!(read_weight(path, Format::V2).unwrap(), Some(39));
    assert_eq!(read_weight(path, Format::V1).unwrap(), Some(100));
    assert_eq!(read_memory(path, Format::V2).unwrap(), (Some(1 << 20), None));
    assert_eq!(read_memory(path, Format::V1).unwrap(), (Some(4096), None));
    fs::write(at("memory.high"), "much\n").unwrap();
    let error = read_memory(path, Format::V2).unwrap_err().to_string();
    assert!(error.ends_with("memory.high: value: \"much\" is not a number in its range"), "{error}");
}

fn level() -> impl Strategy<Value = Level> {
    let quota =
        (1..1u64 << 40, 1..1u64 << 20).prop_map(|(quota_us, period_us)| Quota { quota_us, period_us });
    (prop::option::of(quota), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(|(cpu, max, high)| Level {
        cpu,
        memory_max_bytes: max,
        memory_high_bytes: high,
    })
}

proptest! {
    #[test]
    fn no_text_panics(one in "\\PC*|(max|-?[0-9]{0,25}) ?[0-9]{0,25}\n", other in "\\PC*|[0-9]{0,25}\n") {
        let _ = (Quota::parse(&one), Quota::parse_v1(&one, &other));
        let _ = (parse_weight(&other), parse_bytes(MEMORY_MAX, &one), parse_v1_bytes(&other));
    }

    #[test]
    fn no_level_allows_less_than_what_is_in_force(
        own in level(), above in prop::collection::vec(level(), 0..5),
    ) {
        let limits = in_force(&own, None, &above);
        let cores = |quota: Quota| quota.quota_us as f64 / quota.period_us as f64;
        let all = || above.iter().chain([&own]);
        for level in all() {
            prop_assert!(level.memory_max_bytes.is_none_or(|max| limits.memory_max_bytes.unwrap() <= max));
            prop_assert!(level.memory_high_bytes.is_none_or(|high| limits.memory_high_bytes.unwrap() <= high));
            prop_assert!(level.cpu.is_none_or(|cpu| limits.cpu.unwrap().cores() <= cores(cpu)));
        }
        // And it is one that somebody has.
        let one_has = limits.cpu.is_none_or(|limit| {
            let quota = quota(limit.quota_us, limit.period_us);
            (limit.of == LimitOf::Own) == (own.cpu == Some(quota)) && all().any(|level| level.cpu == Some(quota))
        });
        prop_assert!(one_has);
    }

    #[test]
    fn more_shares_are_no_less_weight(shares in 0..300_000u64) {
        let (weight, next) = (weight_of_shares(shares), weight_of_shares(shares + 1));
        prop_assert!((1..=10_000).contains(&weight) && weight <= next);
    }
}
