// The sample pictures with questions that suit them, and the ready-made sets of questions. All of them are ones that
// the demo model was trained on (models/toytown/recipe/scenes.py).

export const samples = [
  {
    name: 'balloon',
    file: 'sample-balloon.png',
    label: 'Snow, a balloon and a sign',
    questions: [
      'Describe the picture.',
      'What is the weather?',
      'What colour is the balloon?',
      'Read the sign.',
      'What is on the road, from left to right?',
    ],
  },
  {
    name: 'fire',
    file: 'sample-fire.png',
    label: 'A fire among houses',
    questions: [
      'Describe the picture.',
      'Where is the fire?',
      'How many cars are there?',
      'What is behind the road, from left to right?',
      'Does this picture show weapons? Answer yes or no.',
    ],
  },
  {
    name: 'code',
    file: 'sample-code.png',
    label: 'A rainy night with a QR code',
    questions: [
      'Describe the picture.',
      'Is it day or night?',
      'Where is the QR code?',
      'What is on the road, from left to right?',
      'What colour is the balloon?',
    ],
  },
  {
    name: 'cat',
    file: 'sample-cat.png',
    label: 'Three houses and a cat',
    questions: [
      'Describe the picture.',
      'Where is the cat?',
      'Read the sign.',
      'What is behind the road, from left to right?',
      'Tag this picture.',
    ],
  },
  {
    name: 'night',
    file: 'sample-night.png',
    label: 'A clear night with a bottle',
    questions: [
      'Describe the picture.',
      'Is it day or night?',
      'What colour is the house?',
      'Does this picture show alcohol? Answer yes or no.',
      'Read the sign.',
    ],
  },
  {
    name: 'cars',
    file: 'sample-cars.png',
    label: 'Two cars on a cloudy day',
    questions: [
      'Describe the picture.',
      'What is the weather?',
      'How many cars are there?',
      'What is on the road, from left to right?',
      'What colour is the house?',
    ],
  },
];

// `mode`: the one that the set is meant for, taken where there is more than one picture.
export const presets = [
  {
    name: 'toytown',
    label: 'Toy town',
    mode: null,
    questions: [
      'Describe the picture.',
      'What is the weather?',
      'How many houses are there?',
      'What is on the road, from left to right?',
      'Is there a cat?',
    ],
  },
  {
    name: 'moderation',
    label: 'Moderation',
    mode: 'each',
    questions: [
      'Does this picture show fire? Answer yes or no.',
      'Does this picture show weapons? Answer yes or no.',
      'Does this picture show alcohol? Answer yes or no.',
      'Does this picture show QR codes? Answer yes or no.',
    ],
  },
  {
    name: 'album',
    label: 'Album',
    mode: 'each',
    questions: [
      'Is it day or night?',
      'What is the weather?',
      'How many people are there?',
      'Tag this picture.',
      'Describe the picture.',
    ],
  },
  {
    name: 'compare',
    label: 'Compare two',
    mode: 'together',
    questions: [
      'Which picture shows night?',
      'Which picture is snowy?',
      'Which picture has a balloon?',
      'How many cars are in the first picture?',
      'How many trees are in the second picture?',
    ],
  },
  {
    name: 'chinese',
    label: 'Chinese',
    mode: null,
    questions: ['现在是白天还是夜晚?', '天气怎么样?', '有几座房子?', '有猫吗?', '图中是否包含火?请回答是或否。'],
  },
];
