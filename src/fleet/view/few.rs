//! A list that is usually of one.

/// Values of which there is rarely more than one: that one takes no memory of its own.
#[derive(Debug, Default)]
pub(super) enum Few<T> {
    #[default]
    None,
    One(T),
    /// Two or more. Boxed, as it is rare, and all of them are as large as the largest.
    #[allow(clippy::box_collection, reason = "a vector is larger than what is usual here")]
    Many(Box<Vec<T>>),
}

impl<T> Few<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        match self {
            Self::None => [].iter_mut(),
            Self::One(one) => std::slice::from_mut(one).iter_mut(),
            Self::Many(many) => many.iter_mut(),
        }
    }

    pub(super) fn push(&mut self, value: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(value),
            Self::One(one) => Self::Many(Box::new(vec![one, value])),
            Self::Many(mut many) => {
                many.push(value);
                Self::Many(many)
            }
        };
    }

    /// Keeps the order.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        *self = match std::mem::take(self) {
            Self::One(one) if stays(&one) => Self::One(one),
            Self::None | Self::One(_) => Self::None,
            Self::Many(mut many) => {
                many.retain(|value| stays(value));
                match many.len() {
                    0 => Self::None,
                    1 => many.pop().map_or(Self::None, Self::One),
                    _ => {
                        // Room for many that have gone is none that a name should keep.
                        if many.capacity() > 4 * many.len() {
                            many.shrink_to_fit();
                        }
                        Self::Many(many)
                    }
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_in_order_however_many_there_are() {
        let (mut few, mut list) = (Few::default(), Vec::new());
        for number in 0..5 {
            few.push(number);
            list.push(number);
            assert_eq!(few.as_slice(), list);
        }
        for gone in [2, 0, 9, 4, 1, 3] {
            few.retain(|number| *number != gone);
            list.retain(|number| *number != gone);
            assert_eq!(few.as_slice(), list);
            few.iter_mut().zip(&mut list).for_each(|(one, other)| assert_eq!(one, other));
        }
        assert!(matches!(few, Few::None));
    }
}
