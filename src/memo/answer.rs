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
