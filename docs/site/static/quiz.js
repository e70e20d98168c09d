// The course quiz: compares an answer with the right one, and shows what the course says to a wrong one.
(function () {
  const forms = [...document.querySelectorAll('.course-quiz')];
  const said = form => [...form.querySelectorAll('[data-of]')];

  // "0,8", "80 %", "= 0.8" and "1/8" are numbers, too.
  const number = function (text) {
    const plain = text.replace(/^[=\u2248~\s]+|\s+/g, '').replace(',', '.').replace('\u2212', '-');
    const percent = /%$/.test(plain), parts = plain.replace(/%$/, '').split('/');
    if (parts.length > 2 || !parts.every(part => part && isFinite(part))) return null;
    return parts.map(Number).reduce((a, b) => a / b) / (percent ? 100 : 1);
  };

  // "30 dB" has a unit, and "2,048" may be two numbers.
  const unclear = text => /^\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*$/.test(text)
    || (number(text) === null && /^\W*\d.*[a-z]/i.test(text));

  // What is wrong with an answer: null for nothing, '' if there is no answer, else the place of what to say.
  const fault = function (form) {
    const right = form.dataset.answer, places = said(form).map(element => element.dataset.of);
    if (form.dataset.kind === 'number') {
      const text = form.querySelector('input').value, given = number(text), share = Number(form.dataset.within);
      const near = value => Math.abs(given - value) <= share * Math.abs(value) + 1e-9;
      if (unclear(text)) return 'unclear';
      if (given === null) return '';
      const slip = places.find(place => near(Number(place)));
      return slip || (near(Number(right)) ? null : 'none of these');
    }
    const given = [...form.querySelectorAll('input:checked')].map(input => input.value).join('');
    if (!given) return '';
    if (form.dataset.kind === 'choice') return given === right ? null : given;
    return places.find(letter => given.includes(letter) !== right.includes(letter)) || null;
  };

  forms.forEach(form => form.addEventListener('submit', function (event) {
    event.preventDefault();
    const wrong = fault(form), verdict = form.querySelector('.course-verdict');
    said(form).forEach(element => { element.hidden = element.dataset.of !== wrong; });
    verdict.textContent = wrong === '' ? 'Not answered yet.' : wrong === null ? '\u2713 Right.'
      : wrong === 'unclear' ? 'Write the number alone: no unit, and no comma between thousands.' : '\u2717 Not yet.';
    if (wrong === null) {
      form.querySelector('.course-reveal').open = true;
      form.dataset.right = 'yes';
    }
    const right = forms.filter(other => other.dataset.right).length;
    document.querySelector('.course-score').textContent = right + ' of ' + forms.length + ' right.';
  }));
})();
