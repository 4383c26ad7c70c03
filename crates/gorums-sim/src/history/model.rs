//! Objects of a user's own: a sequential model, by which the [search](super::search) goes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::iter::successors;
use std::ops::Range;
use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::search::{Found, Limits, Span, find_twins, search};
use super::{Action, History, Outcome, Verdict, Violation, check};

/// An object as it would be if its operations came one after the other: what
/// [`History::linearizable_as`] judges by.
///
/// The idea is that of the models of Knossos and of Porcupine (Athalye), whose `step` takes what an
/// operation has returned and says whether that may be: so a model may allow several outputs, as
/// that of a lock does which may refuse though it is free.
///
/// ```
/// use gorums_sim::history::{Model, Recorder};
/// use serde::{Deserialize, Serialize};
///
/// /// Starts at 0.
/// struct Counter;
///
/// #[derive(Serialize, Deserialize)]
/// enum Input { Add(u64), Get }
///
/// impl Model for Counter {
///     type State = u64;
///     type Input = Input;
///     type Output = u64;
///
///     fn initial(&self) -> u64 {
///         0
///     }
///
///     fn step(&self, state: &u64, input: &Input, output: Option<&u64>) -> Option<u64> {
///         let after = match input {
///             Input::Add(more) => state + more,
///             Input::Get => *state,
///         };
///         // What is not known may be anything.
///         output.is_none_or(|output| *output == after).then_some(after)
///     }
/// }
///
/// let recorder = Recorder::new();
/// recorder.operation(1, "visits", Input::Add(2)).returned(2);
/// recorder.operation(2, "visits", Input::Add(1)).returned(1);
/// let history = recorder.history();
/// let verdict = history.linearizable_as(&Counter);
/// assert_eq!(
///     verdict.violation().expect("an update was lost").reason(),
///     "client 2: Add(1) on visits returns 1, which cannot be: after 1 the state is 2",
/// );
/// ```
pub trait Model {
    /// What the object is. Two that are equal behave in the same way for ever.
    type State: Eq + Hash + Debug;
    /// What an operation is to do, as [`Recorder::operation`](super::Recorder::operation) was given
    /// it.
    type Input: DeserializeOwned;
    /// What an operation returns, as
    /// [`PendingOperation::returned`](super::PendingOperation::returned) was given it.
    type Output: DeserializeOwned;

    /// The object before the first operation. Each key is an object by itself.
    fn initial(&self) -> Self::State;

    /// The state after an operation took effect, or none where it cannot have returned that in this
    /// state.
    ///
    /// Without an output nobody knows what it returned, for it has failed or not ended. That it had
    /// no effect at all is tried besides; so a state in which it had the one that matters will do.
    ///
    /// It is called many times, and always says the same.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// How many bytes a state takes, for [`Limits::memory`]. To be overridden where a state has
    /// memory elsewhere.
    fn bytes(&self, state: &Self::State) -> usize {
        size_of_val(state)
    }
}

/// The most operations that a violation names.
const NAMED: usize = 12;

/// Of more that matter, so many are named: those by which the state became what it is.
const LAST: usize = 3;

/// How many characters of a state are shown.
const STATE: usize = 200;

/// An operation of one key.
struct Call<I, O> {
    /// Its place in the history.
    at: usize,
    span: Span,
    input: I,
    output: Option<O>,
    /// The same for those that have the same input.
    kind: usize,
}

/// An operation as a search is to take it.
#[derive(Clone, Copy)]
struct Part {
    call: usize,
    span: Span,
    /// Whether what it returned counts.
    known: bool,
}

struct Judge<'a, M: Model> {
    history: &'a History,
    model: &'a M,
    calls: Vec<Call<M::Input, M::Output>>,
    limits: Limits,
}

pub(super) fn linearizable<M: Model>(history: &History, model: &M, limits: Limits) -> Verdict {
    if let Some(unknown) = check::truncated(history) {
        return unknown;
    }
    let mut unknown = None;
    for (key, places) in history.keys() {
        let calls = match calls(history, &places) {
            Ok(calls) => calls,
            Err(why) => {
                unknown = Some(why);
                continue;
            }
        };
        let judge = Judge {
            history,
            model,
            calls,
            limits,
        };
        let all: Vec<Part> = judge.parts().collect();
        match judge.search(&all, limits, &mut 0) {
            Found::Order(..) => {}
            Found::None { stops_at } => return Verdict::Violation(judge.explain(stops_at)),
            Found::Unknown(why) => unknown = Some(format!("key {key:?}: {why}")),
        }
    }
    unknown.map_or(Verdict::Valid, Verdict::Unknown)
}

/// The operations of a key that say something, in the order of their starts.
fn calls<I, O>(history: &History, places: &[usize]) -> Result<Vec<Call<I, O>>, String>
where
    I: DeserializeOwned,
    O: DeserializeOwned,
{
    let mut calls = Vec::with_capacity(places.len());
    let mut kinds = HashMap::new();
    for &at in places {
        let operation = &history.operations[at];
        let Action::Call { input, output } = &operation.action else {
            return Err(format!(
                "{operation}: that is a read or a write of a register, and judged by History::linearizable"
            ));
        };
        if operation.outcome == Outcome::NotDone {
            continue;
        }
        let next = kinds.len();
        let kind = *kinds.entry(input.to_string()).or_insert(next);
        let wrong =
            |what: &str, error| format!("{operation}: its {what} is none of the model's: {error}");
        let input = I::deserialize(input).map_err(|error| wrong("input", error))?;
        let output = match operation.outcome {
            Outcome::Ok => Some(O::deserialize(output).map_err(|error| wrong("output", error))?),
            _ => None,
        };
        calls.push(Call {
            at,
            span: Span::of(operation),
            input,
            output,
            kind,
        });
    }
    // So that what has taken effect is mostly a prefix.
    calls.sort_by_key(|call| call.span.start);
    Ok(calls)
}

impl<M: Model> Judge<'_, M> {
    fn parts(&self) -> impl Iterator<Item = Part> {
        self.calls.iter().enumerate().map(|(call, known)| Part {
            call,
            span: known.span,
            known: known.output.is_some(),
        })
    }

    /// The order that is found is one of places in the list of calls. Parts are in the order of
    /// their starts.
    fn search(&self, parts: &[Part], limits: Limits, steps: &mut u64) -> Found<Rc<M::State>> {
        let mut spans: Vec<Span> = parts.iter().map(|part| part.span).collect();
        find_twins(&mut spans, |at| {
            (!parts[at].known).then(|| self.calls[parts[at].call].kind)
        });
        let step = |state: &Rc<M::State>, at: usize| {
            let Call { input, output, .. } = &self.calls[parts[at].call];
            let output = output.as_ref().filter(|_| parts[at].known);
            self.model.step(state, input, output).map(Rc::new)
        };
        let initial = Rc::new(self.model.initial());
        match search(
            &spans,
            initial,
            step,
            |state| self.model.bytes(state),
            limits,
            steps,
        ) {
            Found::Order(order, state) => {
                let calls = order.into_iter().map(|at| parts[at].call);
                Found::Order(calls.collect(), state)
            }
            Found::None { stops_at } => Found::None {
                stops_at: parts[stops_at].call,
            },
            unknown @ Found::Unknown(_) => unknown,
        }
    }

    /// Why no order lets this operation end: with as few others as it takes.
    fn explain(&self, stops_at: usize) -> Violation {
        // What happened later does not matter, and what had not ended by then need not have taken
        // effect.
        let end = self.calls[stops_at].span.end;
        let until = self.parts().filter(|part| part.span.start <= end);
        let until = until.map(|part| match part.span.end <= end {
            true => part,
            false => Part {
                span: Span::open(part.span.start),
                ..part
            },
        });
        let (mut stop, mut others): (Vec<Part>, Vec<Part>) =
            until.partition(|part| part.call == stops_at);
        let stop = stop.remove(0);
        // A part of the whole effort, of which each search has a part.
        let mut steps = 0;
        let limits = Limits {
            steps: (1000 + 10 * others.len() as u64).min(self.limits.steps),
            ..self.limits
        };
        let mut fails = |parts: Vec<Part>| {
            if steps > self.limits.steps / 50 {
                return None;
            }
            match self.search(&parts, limits, &mut steps) {
                Found::None { .. } => Some(true),
                Found::Order(..) => Some(false),
                Found::Unknown(_) => None,
            }
        };
        // Some do not matter where it fails whatever became of them, and where the rest is right
        // without them, as long as nothing is known of the one at which it stops.
        let mut spared: Vec<Part> = Vec::new();
        let mut spare = |others: &mut Vec<Part>, chunk: Range<usize>| {
            let mut rest = others.clone();
            let weaker: Vec<Part> = rest.drain(chunk).map(Part::weakened).collect();
            let superfluous = fails(together(&[&rest, &[stop.weakened()]])) == Some(false)
                && fails(together(&[&rest, &weaker, &spared, &[stop]])) == Some(true);
            if superfluous {
                *others = rest;
                spared.extend(weaker);
            }
            superfluous
        };
        // First all until some time, such as one at which nobody had a lock.
        let _ = (1..=others.len())
            .rev()
            .any(|end| spare(&mut others, 0..end));
        let halves = successors(Some(others.len() / 2), |size| Some(size / 2));
        let sizes: Vec<usize> = halves.take_while(|size| *size > 0).collect();
        for size in sizes.into_iter().chain([1]) {
            let mut at = 0;
            while at < others.len() {
                let end = (at + size).min(others.len());
                if !spare(&mut others, at..end) {
                    at = end;
                }
            }
        }
        self.violation(&others, stop)
    }

    fn violation(&self, others: &[Part], stop: Part) -> Violation {
        let order = match self.search(others, self.limits, &mut 0) {
            Found::Order(order, state) => Some((order, state)),
            _ => None,
        };
        let mut named: Vec<usize> = others.iter().map(|part| part.call).collect();
        if named.len() >= NAMED {
            let changing = order.as_ref().map(|(order, _)| self.changing(order));
            named = changing.unwrap_or(named);
            named.drain(..named.len().saturating_sub(LAST));
        }
        let more = others.len() - named.len();
        let place = |call: &usize| self.calls[*call].at;
        let mut places: Vec<usize> = named.iter().chain([&stop.call]).map(place).collect();
        places.sort_unstable();
        let shown = &self.history.operations[place(&stop.call)];
        let why = match order {
            Some((order, state)) => {
                let numbers = order.iter().filter(|call| named.contains(call));
                let numbers = numbers.filter_map(|call| places.binary_search(&place(call)).ok());
                let mut after: Vec<_> = numbers.map(|at| (at + 1).to_string()).collect();
                if more > 0 {
                    after.insert(0, format!("{more} others"));
                }
                match after.is_empty() {
                    true => format!("at the beginning the state is {}", cut(&*state)),
                    false => format!("after {} the state is {}", after.join(", "), cut(&*state)),
                }
            }
            None => "no order of these and of what came before allows it".to_owned(),
        };
        Violation::new(format!("{shown}, which cannot be: {why}"), places)
    }

    /// Those of an order after which the state is another one than before.
    fn changing(&self, order: &[usize]) -> Vec<usize> {
        let mut state = self.model.initial();
        let changes = |call: &usize| {
            let Call { input, output, .. } = &self.calls[*call];
            match self.model.step(&state, input, output.as_ref()) {
                Some(after) if after != state => {
                    state = after;
                    true
                }
                _ => false,
            }
        };
        order.iter().copied().filter(changes).collect()
    }
}

impl Part {
    /// Nothing is known of it but when it was called and ended.
    fn weakened(self) -> Self {
        let span = Span {
            optional: true,
            ..self.span
        };
        Self {
            span,
            known: false,
            ..self
        }
    }
}

/// Parts in the order of their starts, as the calls are.
fn together(parts: &[&[Part]]) -> Vec<Part> {
    let mut parts = parts.concat();
    parts.sort_unstable_by_key(|part| part.call);
    parts
}

/// A state that may be long.
fn cut(state: &impl Debug) -> String {
    let whole = format!("{state:?}");
    match whole.char_indices().nth(STATE) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}
