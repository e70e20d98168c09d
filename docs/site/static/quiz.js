// The course quiz: compares an answer with the right one, and shows what the course says to a wrong one.
(function () {
  const forms = [...document.querySelectorAll('.course-quiz')];
  const said = form => [...form.querySelectorAll('[data-of]')];

  // "0,8", "80 %" and "1/8" are numbers, too.
  const number = function (text) {
    const plain = text.trim().replace(',', '.').replace('\u2212', '-');
    const percent = /%$/.test(plain), parts = plain.replace(/\s*%$/, '').split('/');
    if (!parts[0].trim() || parts.length > 2 || !parts.every(part => part.trim() && isFinite(part))) return null;
    return parts.map(Number).reduce((a, b) => a / b) / (percent ? 100 : 1);
  };

  // What is wrong with an answer: null for nothing, '' if there is no answer, else the place of what to say.
  const fault = function (form) {
    const right = form.dataset.answer, places = said(form).map(element => element.dataset.of);
    if (form.dataset.kind === 'number') {
      const given = number(form.querySelector('input').value), share = Number(form.dataset.within);
      const near = value => Math.abs(given - value) <= share * Math.abs(value) + 1e-9;
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
    verdict.textContent = wrong === '' ? 'Not answered yet.' : wrong === null ? '\u2713 Right.' : '\u2717 Not yet.';
    if (wrong === null) {
      form.querySelector('.course-reveal').open = true;
      form.dataset.right = 'yes';
    }
    const right = forms.filter(other => other.dataset.right).length;
    document.querySelector('.course-score').textContent = right + ' of ' + forms.length + ' right.';
  }));
})();
