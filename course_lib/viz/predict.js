(function () {
  const here = document.currentScript;
  const root = (here && here.closest('.course-widget')) || document.getElementById('ROOT');
  const answer = ANSWER;
  const find = name => root.querySelector('.course-' + name);
  const choices = [...root.querySelectorAll('input[type=radio]')], commit = find('commit');
  choices.forEach(choice => choice.addEventListener('change', function () { commit.disabled = false; }));
  commit.addEventListener('click', function () {
    const chosen = choices.findIndex(choice => choice.checked);
    if (chosen < 0) return;
    find('verdict').textContent = chosen === answer ? '\u2713 As you predicted.' : '\u2717 Not what happens.';
    root.querySelectorAll('.course-comment')[chosen].hidden = false;
    choices.forEach(choice => { choice.disabled = true; });
    commit.hidden = true;
    find('reveal').open = true;
    find('reveal').hidden = false;
    root.querySelectorAll('label')[answer].style.fontWeight = 'bold';
    find('verdict').focus();
  });
  find('still').hidden = true;
  find('controls').hidden = false;
  find('reveal').hidden = true;
})();
