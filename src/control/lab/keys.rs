//! Every key of a `lab.yaml`, as the topology's are in `model::spec::keys`: what is not here is refused by name.

use super::Layer;
use crate::model::spec::keys::{Key, Noun, Shape, State};

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, state: State::Now, must: false, doc }
}

const fn must(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, state: State::Now, must: true, doc }
}

pub static LAB: Noun = Noun {
    name: "a lab",
    common: false,
    keys: &[
        must("format", Shape::OneOf(&["1"]), "version of this format: 1"),
        must("id", Shape::Text, "its name on the command line"),
        must("title", Shape::Text, "one line"),
        key("order", Shape::Int(0, 10_000), "place in the list"),
        key("kind", Shape::OneOf(&["guided", "incident"]), "left out: incident"),
        key("difficulty", Shape::Int(1, 5), "1 to 5"),
        key("minutes", Shape::Int(1, 240), "how long a learner needs"),
        key("cases", Shape::Texts, "numbers of the catalogue of failures"),
        key("objectives", Shape::Texts, "exam objectives it trains"),
        key("requires", Shape::Texts, "ids of labs that come before it"),
        key("base", Shape::Text, "a topology that is shipped; left out: topology.yaml of the folder"),
        key("limits", Shape::TextMap, "times and quotas of the topology, made short"),
        key("live", Shape::Bool, "the break is laid over the running base: its connections live on"),
        key("fresh", Shape::Bool, "the broken state is started anew: kernels remember the one before"),
        must("symptom", Shape::List(&CHECK), "what is seen while it is broken"),
        key("refused", Shape::List(&REFUSED), "wrong fixes that AWS refuses to make"),
        must("steps", Shape::List(&STEP), "what the learner does, in order"),
    ],
};

pub static REFUSED: Noun = Noun {
    name: "a refused fix",
    common: false,
    keys: &[
        must("patch", Shape::Text, "a file of `wrong-fixes`"),
        must("with", Shape::Text, "a pattern that the report matches: AWS's code or words"),
    ],
};

pub static CHANGE: Noun = Noun {
    name: "a change",
    common: false,
    keys: &[
        must("patch", Shape::Text, "a file of the lab's: `changes/NAME.patch.yaml`"),
        key("after", Shape::Duration, "so long after the command began; left out: 1s"),
    ],
};

pub static STEP: Noun = Noun {
    name: "a step",
    common: false,
    keys: &[
        must("id", Shape::Text, "its name"),
        must("say", Shape::Text, "the task in a sentence or two"),
        key("ask", Shape::Noun(&ASK), "a question to answer first: predict, then run"),
        key("state", Shape::OneOf(&["broken", "fixed"]), "when its checks hold; left out: fixed"),
        key("check", Shape::List(&CHECK), "what must hold for the step to be solved"),
        key("guard", Shape::List(&CHECK), "what must hold all the time"),
        key("hints", Shape::List(&HINT), "by the state that is seen"),
    ],
};

pub static ASK: Noun = Noun {
    name: "a question",
    common: false,
    keys: &[
        must("options", Shape::Texts, "words to choose from"),
        must("answer", Shape::Text, "the right one"),
        key("why", Shape::Text, "said after the right answer"),
    ],
};

pub static HINT: Noun = Noun {
    name: "a hint",
    common: false,
    keys: &[
        key("when", Shape::Noun(&WHEN), "left out: always"),
        must("text", Shape::Texts, "from a question to the command, one more each time"),
    ],
};

pub static WHEN: Noun = Noun {
    name: "a state",
    common: false,
    keys: &[
        must("check", Shape::Text, "id of the check that is red first"),
        key("saw", Shape::Text, "a pattern for what it saw"),
    ],
};

pub static CHECK: Noun = Noun {
    name: "a check",
    common: false,
    keys: &[
        key("id", Shape::Text, "for hints; left out: its number"),
        must("on", Shape::Text, "an instance; `any` with `never`"),
        key("layer", Shape::OneOf(Layer::WORDS), "left out: by its kind"),
        key("run", Shape::Text, "a command for `sh -c` in the instance"),
        key("to", Shape::Text, "a destination as `explain` takes it: a real packet and the tables are asked"),
        key("dns", Shape::Text, "a name, and a type if other than A"),
        key("never", Shape::OneOf(&["internet", "nat", "gateway-endpoint"]), "a way that must not exist"),
        key("flow", Shape::Text, "NAME:PORT: a connection that exists"),
        key("user", Shape::Text, "of `run`: `root` may configure the instance's network"),
        key("change", Shape::Noun(&CHANGE), "of `run`: a patch that is laid over the lab meanwhile, and taken back"),
        key("expect", Shape::NounOrText(&EXPECT), "reachable, unreachable, a drop code, alive, silent, or a map"),
        key("via", Shape::Text, "the way it must take"),
        key("not_via", Shape::Text, "the way it must not take"),
        key("drop", Shape::Text, "`CODE` or `CODE at OBJECT`: a drop that is recorded meanwhile"),
        key("retry", Shape::Duration, "asked again for so long"),
        key("within", Shape::Duration, "the longest a command may run; left out: 10s"),
        key("broken", Shape::OneOf(&["red", "green"]), "while broken; left out: red for a check, green for a guard"),
    ],
};

pub static EXPECT: Noun = Noun {
    name: "an expectation",
    common: false,
    keys: &[
        key("exit", Shape::Int(0, 255), "exit code of the command"),
        key("stdout", Shape::Text, "a pattern that the output matches"),
        key("stderr", Shape::Text, "a pattern that the error output matches"),
        key("not_stdout", Shape::Text, "a pattern that it does not match"),
        key("not_stderr", Shape::Text, "a pattern that it does not match"),
        key("in_cidr", Shape::Cidr, "the block that every answered address is in"),
        key("not_in_cidr", Shape::Cidr, "the block that no answered address is in"),
        key("after", Shape::Duration, "it takes at least so long"),
        key("before", Shape::Duration, "it takes less than so long"),
    ],
};
