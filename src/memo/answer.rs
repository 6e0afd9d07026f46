//! What a function answers: a value, perhaps none, perhaps an error.

use std::convert::Infallible;
use std::marker::PhantomData;

/// What of an answer is remembered. An error is not.
pub trait Answer {
    /// What the function answers.
    type Output;
    /// The value in it.
    type Value;
    /// The error in it.
    type Error;
    /// Whether there may be no value.
    const OPTIONAL: bool;

    /// The parts of an answer.
    fn split(output: Self::Output) -> Result<Option<Self::Value>, Self::Error>;

    /// The answer of these parts. There is a value unless there may be none.
    fn join(parts: Result<Option<Self::Value>, Self::Error>) -> Self::Output;
}

/// `T`.
#[derive(Debug)]
pub struct Plain<T>(PhantomData<T>);

/// `Option<T>`.
#[derive(Debug)]
pub struct Optional<T>(PhantomData<T>);

/// `Result<T, E>`.
#[derive(Debug)]
pub struct Fallible<T, E>(PhantomData<(T, E)>);

/// `Result<Option<T>, E>`.
#[derive(Debug)]
pub struct FallibleOptional<T, E>(PhantomData<(T, E)>);

/// Tells what a function answers that answers a `T`, whatever the type is called:
/// `(&&&Probe::<T>::new()).kind()`, with the traits of [`kind`] in scope. The compiler takes the first that fits.
#[derive(Debug)]
pub struct Probe<T>(PhantomData<T>);

impl<T> Probe<T> {
    /// A probe.
    #[expect(clippy::new_without_default, reason = "a probe is no value of its own")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// What a [`Probe`] finds.
pub mod kind {
    use super::{Fallible, FallibleOptional, Optional, PhantomData, Plain, Probe};

    macro_rules! kinds {
        ($($trait:ident: [$($generic:ident),*] $of:ty => $kind:ty),* $(,)?) => { $(
            #[doc = concat!("Of `", stringify!($kind), "`.")]
            pub trait $trait {
                /// What is answered.
                type Answer;
                /// The same.
                fn kind(&self) -> PhantomData<Self::Answer> {
                    PhantomData
                }
            }

            impl<$($generic),*> $trait for $of {
                type Answer = $kind;
            }
        )* };
    }

    kinds! {
        OfFallibleOptional: [T, E] &&Probe<Result<Option<T>, E>> => FallibleOptional<T, E>,
        OfFallible: [T, E] &Probe<Result<T, E>> => Fallible<T, E>,
        OfOptional: [T] &Probe<Option<T>> => Optional<T>,
        OfPlain: [T] Probe<T> => Plain<T>,
    }
}

impl<T> Answer for Plain<T> {
    type Output = T;
    type Value = T;
    type Error = Infallible;
    const OPTIONAL: bool = false;

    fn split(output: T) -> Result<Option<T>, Infallible> {
        Ok(Some(output))
    }

    fn join(parts: Result<Option<T>, Infallible>) -> T {
        let Ok(value) = parts;
        sure(value)
    }
}

impl<T> Answer for Optional<T> {
    type Output = Option<T>;
    type Value = T;
    type Error = Infallible;
    const OPTIONAL: bool = true;

    fn split(output: Option<T>) -> Result<Option<T>, Infallible> {
        Ok(output)
    }

    fn join(parts: Result<Option<T>, Infallible>) -> Option<T> {
        let Ok(value) = parts;
        value
    }
}

impl<T, E> Answer for Fallible<T, E> {
    type Output = Result<T, E>;
    type Value = T;
    type Error = E;
    const OPTIONAL: bool = false;

    fn split(output: Result<T, E>) -> Result<Option<T>, E> {
        output.map(Some)
    }

    fn join(parts: Result<Option<T>, E>) -> Result<T, E> {
        parts.map(sure)
    }
}

impl<T, E> Answer for FallibleOptional<T, E> {
    type Output = Result<Option<T>, E>;
    type Value = T;
    type Error = E;
    const OPTIONAL: bool = true;

    fn split(output: Result<Option<T>, E>) -> Result<Option<T>, E> {
        output
    }

    fn join(parts: Result<Option<T>, E>) -> Result<Option<T>, E> {
        parts
    }
}

/// The value of what is never absent.
pub(super) fn sure<T>(value: Option<T>) -> T {
    match value {
        Some(value) => value,
        None => unreachable!("only what may be absent is split into nothing"),
    }
}
