//! A packet that goes from gateway to gateway without end: its round is told once.

use super::Step;

/// Leaves one round of those that the steps of a stage begin and repeat, and says how often.
pub(super) fn once(steps: &mut Vec<Step>, stage: &'static str) {
    let first = steps.iter().position(|step| step.stage == stage).unwrap_or(steps.len());
    let Some((begin, length, times)) = round(&steps[first..]) else { return };
    let (begin, rest) = (first + begin, first + begin + length * times);
    // What follows the whole rounds is a part of one more, and what ended it.
    let part = steps[rest..].iter().zip(&steps[begin..]).take_while(|(step, same)| step == same).count();
    let detail = format!("the {length} steps above, {times} times");
    let told = Step { stage, at: "-".into(), what: "goes round".into(), outcome: "DROP", detail };
    steps.splice(begin + length..rest + part, [told]);
}

/// Where a round begins that is walked at least three times one after the other, its length, and how often.
fn round(steps: &[Step]) -> Option<(usize, usize, usize)> {
    (0..steps.len()).find_map(|begin| {
        let rest = &steps[begin..];
        (2..=rest.len() / 3).find_map(|length| {
            let times = rest.chunks_exact(length).take_while(|round| *round == &rest[..length]).count();
            (times > 2).then_some((begin, length, times))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(ats: &str) -> Vec<Step> {
        let step = |at: char| Step {
            stage: "there",
            at: at.to_string(),
            what: "route table".into(),
            outcome: "route",
            detail: String::new(),
        };
        ats.chars().map(step).collect()
    }

    fn told(ats: &str) -> Vec<String> {
        let mut steps = steps(ats);
        once(&mut steps, "there");
        steps.into_iter().map(|step| step.at + &step.detail).collect()
    }

    #[test]
    fn a_round_is_told_once() {
        assert_eq!(told("xabcabcabcabD"), ["x", "a", "b", "c", "-the 3 steps above, 3 times", "D"]);
        assert_eq!(told("abababab"), ["a", "b", "-the 2 steps above, 4 times"]);
    }

    #[test]
    fn what_does_not_go_round_stays() {
        for ats in ["", "a", "abab", "aaaa", "xabcabcD"] {
            assert_eq!(told(ats).concat(), ats);
        }
        let mut others = steps("abababab");
        once(&mut others, "back");
        assert_eq!(others, steps("abababab"));
    }
}
