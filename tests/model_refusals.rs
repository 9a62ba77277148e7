//! What is refused, where the report points to, with which of AWS's codes and in which words. The cases are in
//! `tests/data/refusals*.txt`: a topology, `---`, and one line per problem, `LINE:COL CODE | message`.

use vpclab::model::{Around, Report, Source, load};

const CASES: [&str; 2] = [include_str!("data/refusals.txt"), include_str!("data/refusals-joined.txt")];

fn report_of(text: &str) -> Report {
    match load(&[Source::new("lab.yaml", text)], &Around::default()) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report,
    }
}

fn lines_of(report: &Report) -> Vec<String> {
    let line = |p: &vpclab::model::Problem| format!("{}:{} {} | {}", p.line, p.col, p.code.unwrap_or("-"), p.message);
    report.problems.iter().map(line).collect()
}

#[test]
fn every_problem_of_a_file_is_reported_at_its_place_with_its_code() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for case in CASES.iter().flat_map(|file| file.split("=== ").skip(1)) {
        cases += 1;
        let (title, rest) = case.split_once('\n').expect("a title");
        let (text, expected) = rest.split_once("---\n").expect("a line of dashes");
        let report = report_of(text);
        let seen = lines_of(&report);
        let expected: Vec<&str> = expected.lines().filter(|l| !l.is_empty()).collect();
        if seen != expected {
            wrong.push(format!("=== {title}\n{text}---\n{}\n", seen.join("\n")));
        }
        // Every problem is shown with the line it is about and a caret under it.
        let shown = report.render(false);
        for p in &report.problems {
            assert!(shown.contains(&format!("lab.yaml:{}:{}", p.line, p.col)), "{title}:\n{shown}");
        }
        assert!(shown.contains('^'), "{title}:\n{shown}");
    }
    assert!(cases > 20, "the file of cases is short: {cases}");
    assert!(wrong.is_empty(), "the reports of these cases are other than expected:\n{}", wrong.join("\n"));
}

#[test]
fn a_report_shows_the_text_the_code_the_other_object_and_what_to_write() {
    let text = "version: 1
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a } }
    instances:
      one: { subnet: a, ip: 10.0.1.9 }
      two: { subnett: a, ip: 10.0.1.9 }
      three: { subnet: a, ip: 10.0.1.9 }
";
    let shown = report_of(text).render(false);
    assert!(shown.contains("error[MissingParameter]: instance app.two: `subnet` is missing"), "{shown}");
    assert!(
        shown.contains(
            "\
error: instance app.two: unknown key `subnett`
 --> lab.yaml:9:14
  |
9 |       two: { subnett: a, ip: 10.0.1.9 }
  |              ^^^^^^^
  |
  = help: did you mean `subnet`?
"
        ),
        "{shown}"
    );
    assert!(
        shown.contains(
            "\
error[InvalidIPAddress.InUse]: instance app.three: address 10.0.1.9 is in use by instance app.one
  --> lab.yaml:10:31
   |
10 |       three: { subnet: a, ip: 10.0.1.9 }
   |                               ^^^^^^^^
   |
  ::: lab.yaml:8:29
   |
 8 |       one: { subnet: a, ip: 10.0.1.9 }
   |                             -------- in use here
"
        ),
        "{shown}"
    );
    // Colour is never alone: without it the same text stands there.
    assert!(report_of(text).render(true).contains('\u{1b}') && !shown.contains('\u{1b}'));
}

#[test]
fn problems_of_several_files_name_the_file_they_are_in() {
    let base = Source::new("base.yaml", "version: 1\nregion: eu-west-1\nvpcs: { app: { cidr: 10.0.0.0/16 } }\n");
    let patch = Source::new("patch.yaml", "vpcs:\n  app: { subnets: { a: { cidr: 10.1.0.0/24, az: a } } }\n");
    let report = load(&[base, patch], &Around::default()).expect_err("out of the VPC");
    assert!(report.to_string().starts_with("patch.yaml:2:32: InvalidSubnet.Range"), "{report}");
    assert_eq!(report.problems[0].also[0].file, "base.yaml");
    // Both are unreadable: both are told.
    let bad = [Source::new("one.yaml", "a: [\n"), Source::new("two.yaml", "a: 1\na: 2\n")];
    let report = load(&bad, &Around::default()).expect_err("unreadable").to_string();
    assert!(report.contains("one.yaml:") && report.contains("two.yaml:2:1"), "{report}");
    assert!(load(&[], &Around::default()).is_err());
}

#[test]
fn quotas_too_large_for_a_case_in_a_file() {
    let groups = |n: usize| (0..n).map(|at| format!("g{at}: {{}}")).collect::<Vec<_>>().join(", ");
    // With the two default groups it is 2,501 in one region; a third VPC is elsewhere.
    let text = |n: usize| {
        format!(
            "version: 1\nregion: eu-west-1\nvpcs:\n  a: {{ cidr: 10.0.0.0/16, security_groups: {{ {} }} }}\n  \
             b: {{ cidr: 10.1.0.0/16, security_groups: {{ {} }} }}\n  \
             c: {{ cidr: 10.2.0.0/16, region: eu-west-2, security_groups: {{ {} }} }}\n",
            groups(2_000),
            groups(n),
            groups(2_000)
        )
    };
    assert!(load(&[Source::new("lab.yaml", text(498))], &Around::default()).is_ok());
    let report = report_of(&text(499));
    assert_eq!(report.problems.len(), 1, "{}", report.render(false));
    let problem = &report.problems[0];
    assert_eq!(problem.code, Some("SecurityGroupLimitExceeded"));
    assert!(
        problem.message.contains("The maximum number of security groups has been reached: 2500 in eu-west-1"),
        "{}",
        problem.message
    );

    let site = |name: &str, second: usize, n: usize| {
        let blocks: Vec<String> = (0..n).map(|at| format!("172.{second}.{at}.0/24")).collect();
        format!("  {name}: {{ cidr: [{}], vpn: {{ to: vgw:a }} }}\n", blocks.join(", "))
    };
    let text = |n: usize| {
        format!(
            "version: 1\nregion: eu-west-1\nvpcs:\n  a:\n    cidr: 10.0.0.0/16\n    virtual_private_gateway: true\n    \
             route_tables:\n      rt: {{ propagate: true }}\non_prem:\n{}{}{}",
            site("one", 16, 40),
            site("two", 17, 40),
            site("three", 18, n)
        )
    };
    if let Err(report) = load(&[Source::new("lab.yaml", text(20))], &Around::default()) {
        panic!("{}", report.render(false));
    }
    let report = report_of(&text(21));
    assert_eq!(
        lines_of(&report),
        ["8:7 RouteLimitExceeded | route table a.rt: The maximum number of propagated routes has been reached: \
             101 routes, and a table takes 100"]
    );
}

#[test]
fn what_is_true_or_false_is_said_to_be_so_whatever_was_written() {
    let of = |written: &str| {
        let text = format!(
            "version: 1\nregion: eu-west-1\nvpcs:\n  a:\n    cidr: 10.0.0.0/16\n    virtual_private_gateway: true\n    route_tables:\n      \
             rt: {{ propagate: {written} }}\n"
        );
        lines_of(&report_of(&text))
    };
    assert_eq!(of("[vgw]"), ["8:24 - | route table a.rt: `propagate` is true or false, not a list"]);
    assert_eq!(of("vgw"), ["8:24 - | route table a.rt: `propagate` is true or false, not `vgw`"]);
}

#[test]
fn a_vpc_and_a_site_of_one_name_are_told_apart_by_another() {
    let text = "version: 1\nregion: eu-west-1\nvpcs:\n  dc:\n    cidr: 10.9.0.0/16\n    subnets: { a: { cidr: 10.9.1.0/24, az: a } }\n    \
                instances: { h: { subnet: a } }\non_prem:\n  dc: { cidr: 192.168.0.0/16, hosts: { h: {} } }\n";
    let report = report_of(text);
    assert_eq!(lines_of(&report), ["9:40 - | two of the kind instance are named dc.h"]);
    let help = report.problems[0].help.as_deref();
    assert_eq!(help, Some("a VPC and a site both have the name `dc`: rename the VPC, or one of the two machines"));
    let twins = "version: 1\nregion: eu-west-1\nvpcs:\n  a:\n    cidr: 10.9.0.0/16\n    subnets: { a: { cidr: 10.9.1.0/24, az: a } }\n    \
                 instances: { h: { subnet: a, count: 2 }, h-1: { subnet: a } }\n";
    let help = report_of(twins).problems[0].help.clone();
    assert!(help.is_some_and(|help| help.contains("NAME-1")));
}

#[test]
fn a_count_that_does_not_fit_is_one_problem() {
    let text = "version: 1\nregion: eu-west-1\nvpcs:\n  a:\n    cidr: 10.0.0.0/16\n    subnets: { s: { cidr: 10.0.1.0/24, az: a } }\n    \
                instances:\n      web: { subnet: s, count: 300 }\n      more: { subnet: s }\n";
    let none = "subnet a.s (10.0.1.0/24) has no free address left";
    assert_eq!(
        lines_of(&report_of(text)),
        [
            format!(
                "8:7 InsufficientFreeAddressesInSubnet | instance a.web-252 to instance a.web-300: {none} for these 49"
            ),
            format!("9:7 InsufficientFreeAddressesInSubnet | instance a.more: {none}"),
        ]
    );
}

#[test]
fn a_prefix_list_is_helped_to_its_name() {
    let of = |rule: &str| {
        let text = format!(
            "version: 1\nregion: eu-west-1\nvpcs: {{ a: {{ cidr: 10.0.0.0/16, security_groups: {{ g: {{ egress: [\"{rule}\"] }} }} }} }}\n"
        );
        report_of(&text).problems[0].help.clone().unwrap_or_default()
    };
    let dynamodb =
        "a prefix list is written by name: `pl:dynamodb` is AWS's own of dynamodb, `pl:NAME` one of the file";
    assert_eq!(of("tcp 443 to pl-dynamodb"), dynamodb);
    assert_eq!(of("tcp 443 to pl:pl-dynamodb"), dynamodb);
    assert!(of("tcp 443 to pl-6da54004").contains("`pl:s3` is AWS's own of s3"));
    assert_eq!(of("tcp 443 to com.amazonaws.eu-west-1.s3"), "write `pl:com.amazonaws.eu-west-1.s3`");
}
