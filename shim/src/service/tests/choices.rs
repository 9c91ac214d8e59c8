//! Which of the steps that can be taken is, each time: all sequences, one after the other.

#[derive(Debug, Default)]
pub struct Choices {
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    pub fn of(&mut self, count: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push((0, count));
        }
        let (chosen, known) = self.made[self.at];
        assert_eq!(known, count, "the same steps lead elsewhere: {:?}", self.made);
        self.at += 1;
        chosen
    }

    /// Whether there are others.
    pub fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((chosen, count)) = self.made.pop() {
            if chosen + 1 < count {
                self.made.push((chosen + 1, count));
                return true;
            }
        }
        false
    }
}
